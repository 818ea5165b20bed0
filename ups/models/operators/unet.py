"""The convolutional U-Net: residual blocks on grids of tokens, each half as fine as the one before.

That of PDEArena (Gupta and Brandstetter 2022, arXiv:2209.15616: pre-activation residual blocks, strided maps down and
up, skips concatenated), with the boundary's own padding and without normalisation, which would hide the amplitude
that the speed of a wave depends on. All kernels are matrices, as Muon wants them.
"""

import itertools
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ups.models.float32 import Float32Linear
from ups.models.operators.convolution import TokenConvolution
from ups.models.operators.grid_network import GridNetwork
from ups.models.shape import ProblemShape
from ups.problems import Boundary


class _Residual(nn.Module):
    """x plus two convolutions of it, each behind an activation: [*tokens, B, W] to the same."""

    def __init__(self, axes: int, width: int) -> None:
        super().__init__()
        self.first, self.second = TokenConvolution(axes, width, 1), TokenConvolution(axes, width, 1)

    def forward(self, x: Tensor, boundary: Boundary) -> Tensor:
        y = self.first(F.gelu(x, approximate="tanh"), boundary)
        return x + self.second(F.gelu(y, approximate="tanh"), boundary)


class _Level(nn.Module):
    """Residual blocks, one after the other."""

    def __init__(self, axes: int, width: int, depth: int) -> None:
        super().__init__()
        self.residuals = nn.ModuleList(_Residual(axes, width) for _ in range(depth))

    def forward(self, x: Tensor, boundary: Boundary) -> Tensor:
        for residual in self.residuals:
            x = residual(x, boundary)
        return x


class _Down(nn.Module):
    """A level, and its two neighbours along every axis made one: [*tokens, B, W] to [*tokens / 2, B, 2 W]."""

    def __init__(self, axes: int, width: int, depth: int) -> None:
        super().__init__()
        self.level = _Level(axes, width, depth)
        self.merge = Float32Linear(2**axes * width, 2 * width)
        self.places = [
            tuple(slice(o, None, 2) for o in place) for place in itertools.product(range(2), repeat=axes)
        ]

    def forward(self, x: Tensor, boundary: Boundary) -> tuple[Tensor, Tensor]:
        """The level's own tokens, to be kept for the way up, and the coarser ones."""
        kept = self.level(x, boundary)
        return kept, self.merge(torch.cat([kept[place] for place in self.places], dim=-1))


class _Up(nn.Module):
    """The inverse: tokens [*tokens / 2, B, 2 W] and what was kept [*tokens, B, W] to [*tokens, B, W]."""

    def __init__(self, axes: int, width: int, depth: int) -> None:
        super().__init__()
        self.axes = axes
        self.split = Float32Linear(2 * width, 2**axes * width)
        self.join = Float32Linear(2 * width, width)
        self.level = _Level(axes, width, depth)

    def forward(self, x: Tensor, kept: Tensor, boundary: Boundary) -> Tensor:
        axes = self.axes
        parts = self.split(x).unflatten(-1, (*(2,) * axes, -1))  # [*tokens / 2, B, 2, .., W]
        order = [place for axis in range(axes) for place in (axis, axes + 1 + axis)]
        fine = parts.permute(*order, axes, -1).reshape(*kept.shape)
        return self.level(self.join(torch.cat([fine, kept], dim=-1)), boundary)


class UNet(nn.Module):
    """All levels: [*tokens, B, W] to the same."""

    def __init__(self, axes: int, *, width: int, depth: int, levels: int) -> None:
        """depth: residual blocks on each level, down and up. levels: how often tokens are halved and width doubled."""
        super().__init__()
        widths = [width * 2**level for level in range(levels)]
        self.down = nn.ModuleList(_Down(axes, w, depth) for w in widths)
        self.middle = _Level(axes, width * 2**levels, depth)
        self.up = nn.ModuleList(_Up(axes, w, depth) for w in reversed(widths))

    def forward(self, x: Tensor, boundary: Boundary, condition: Tensor) -> Tensor:
        kept = []
        for down in self.down:
            own, x = down(x, boundary)
            kept.append(own)
        x = self.middle(x, boundary)
        for up in self.up:
            x = up(x, kept.pop(), boundary)
        return x


def network(
    shapes: Mapping[str, ProblemShape], *, width: int, depth: int, levels: int, **ends: Any
) -> nn.Module:
    """See `ups.models.operators`."""
    return GridNetwork(
        shapes,
        lambda shape: UNet(len(shape.grid), width=width, depth=depth, levels=levels),
        width=width,
        **ends,
    )
