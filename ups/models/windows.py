"""Windows of tokens, within which a transformer attends: shifted by half a window in every other block.

Windows that lie elsewhere in the next block carry what a token knows beyond its own (Swin, Liu et al. 2021,
arXiv:2103.14030, section 3.2). On a periodic axis the last window goes on at the axis' beginning. On an axis with walls
it would hold tokens from both ends, and those do not see each other. One window that holds all tokens is full attention.

Windows are shapes of tensors, and so need no FlexAttention: it could only skip blocks of 128 x 128 scores, and there are
no more of them in 16 to 256 tokens than two by two. It has no backward pass on a CPU (torch 2.13 refuses it, compiled or
not), so no test here could train with it.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ups.models.token_grid import TokenGrid


class Windows(NamedTuple):
    """N windows of n tokens each, and what attention must know of their tokens.

    Attributes:
        partition: the tokens as points, whose patches are the windows.
        shift: by how many tokens they begin later, along every axis.
        table: rotations of their tokens, [2, N, n, head_dim].
        visible: [N, 1, n, n] bool, which tokens of a window a token attends to; None: all.
    """

    partition: TokenGrid
    shift: int
    table: Tensor
    visible: Tensor | None = None

    def split(self, x: Tensor) -> Tensor:
        """Tokens [B, K, C] to those of the windows, [B, N, n, C]."""
        grid = self._rolled(x.unflatten(1, self.partition.grid), -self.shift)
        return self.partition.patchify(grid).unflatten(-1, (self.partition.patch_points, -1))

    def join(self, x: Tensor) -> Tensor:
        """The inverse of `split`."""
        grid = self.partition.unpatchify(x.flatten(2))
        return self._rolled(grid, self.shift).flatten(1, -2)

    def _rolled(self, grid: Tensor, shift: int) -> Tensor:
        axes = self.partition.axes
        return grid.roll((shift,) * axes, dims=tuple(range(1, 1 + axes))) if shift else grid


def partition_of(token_grid: TokenGrid, window: int | None) -> TokenGrid:
    """The tokens as points, and windows of so many tokens per axis as patches; None: one window.

    Raises:
        ValueError: windows do not divide the tokens.
    """
    tokens = token_grid.tokens
    windows = tuple(n // (window or n) for n in tokens)
    if window is not None and any(n % window for n in tokens):
        raise ValueError(f"windows of {window} do not divide the tokens {tokens}")
    return TokenGrid(tokens, windows, token_grid.periodic)


def visible_within(partition: TokenGrid, shift: int) -> Tensor | None:
    """See `Windows`: all but tokens from both ends of an axis with walls, which are as far apart as a window is wide or
    further; none are where one window holds the axis.
    """
    if not shift:
        return None
    walled = [axis for axis, wraps in enumerate(partition.periodic) if not wraps]
    places = torch.cartesian_prod(*(torch.arange(n) for n in partition.grid)).view(1, -1, partition.axes)
    places = Windows(partition, shift, places).split(places)[0][..., walled]  # [N, n, walled axes]
    distance = (places.unsqueeze(1) - places.unsqueeze(2)).abs()
    widths = torch.tensor([partition.patch[axis] for axis in walled])
    visible = (distance < widths).all(dim=-1).unsqueeze(1)
    return None if visible.all() else visible
