"""Which part of the parameters this rank holds, for those who need a parameter whole."""

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor

from ups.runtime.ranks import Ranks


class Placement:
    """Every rank holds every parameter whole."""

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks

    def whole(self, part: Tensor, values: Tensor) -> Tensor:
        """The values of a whole parameter [rows, ...], from those of its rows here, [rows here, ...]; a collective call.

        part: the rows of the parameter that the optimiser has, by which the parameter is known.
        """
        del part
        return values

    def part(self, part: Tensor, values: Tensor) -> Tensor:
        """The values of a parameter's rows here, [rows here, ...], from those of the whole, [rows, ...]; see `whole`."""
        del part
        return values

    def shared_out(self, function: Callable[[Tensor], Tensor], values: Tensor) -> Tensor:
        """function(values), row by row, [n, ...] to the same shape; each rank computes some rows of it. A collective call."""
        if self.ranks.world == 1:
            return function(values)
        share = -(-len(values) // self.ranks.world)
        mine = function(values[self.ranks.rank * share :][:share])
        rows = torch.zeros(share, *values.shape[1:], dtype=mine.dtype, device=mine.device)
        rows[: len(mine)] = mine
        gathered = [torch.empty_like(rows) for _ in range(self.ranks.world)]
        dist.all_gather(gathered, rows)
        return torch.cat(gathered)[: len(values)]
