"""The one typed batch that every stage consumes."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Windows of equally distant frames of one problem, drawn across its trajectories.

    Attributes:
        problem: name of the problem in the configuration; a batch holds one.
        fields: [B, T, *grid, C] physical fields, where they are read.
        known: [B, T, C] bool, which fields are known in which frame; None: all. Unknown values are 0.
        scalars: [B, S] natural logarithms of the equation's dimensionless numbers.
        step: of the training that drew it.
        stride: frames of the data from one frame of a window to the next.
        latents: [B, T, K, d] standardised latents, where a cache is read.
        forecasts, variances: [B, T, K, d] and [B, T, K, 1] the operator's forecast of these latents, where its
            residual is learnt.
    """

    problem: str
    scalars: Tensor
    step: int = 0
    stride: int = 1
    fields: Tensor | None = None
    known: Tensor | None = None
    latents: Tensor | None = None
    forecasts: Tensor | None = None
    variances: Tensor | None = None

    def __len__(self) -> int:
        return len(self.scalars)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Those that it has, by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}

    def each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        """The batch with all its tensors changed."""
        return replace(self, **{name: change(value) for name, value in self.tensors.items()})

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device; nothing is copied where it is there already."""
        return self.each(lambda value: value.to(device, non_blocking=True))

    def parts(self, count: int) -> "list[Batch]":
        """The batch in equal parts."""
        size, rest = divmod(len(self), count)
        assert not rest, "the configuration asks for equal parts"
        return [
            self.each(lambda value, start=start: value[start : start + size])
            for start in range(0, len(self), size)
        ]
