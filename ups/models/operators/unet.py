"""The convolutional U-Net: residual blocks on grids of tokens, each half as fine as the one before.

That of PDEArena (Gupta and Brandstetter 2022, arXiv:2209.15616: pre-activation residual blocks, strided maps down and
up, skips concatenated), with the boundary's own padding and without normalisation, which would hide the amplitude
that the speed of a wave depends on. All kernels are matrices, as Muon wants them.
"""

import itertools
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ups.models.conditioning import ProblemConditioning
from ups.models.embedding import WallEmbedding, module_key
from ups.models.operators.convolution import TokenConvolution
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
        self.merge = nn.Linear(2**axes * width, 2 * width)
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
        self.split = nn.Linear(2 * width, 2**axes * width)
        self.join = nn.Linear(2 * width, width)
        self.level = _Level(axes, width, depth)

    def forward(self, x: Tensor, kept: Tensor, boundary: Boundary) -> Tensor:
        axes = self.axes
        parts = self.split(x).unflatten(-1, (*(2,) * axes, -1))  # [*tokens / 2, B, 2, .., W]
        order = [place for axis in range(axes) for place in (axis, axes + 1 + axis)]
        fine = parts.permute(*order, axes, -1).reshape(*kept.shape)
        return self.level(self.join(torch.cat([fine, kept], dim=-1)), boundary)


class _Pyramid(nn.Module):
    """All levels for one number of axes: [*tokens, B, W] to the same."""

    def __init__(self, axes: int, width: int, depth: int, levels: int) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(levels)]
        self.down = nn.ModuleList(_Down(axes, w, depth) for w in widths)
        self.middle = _Level(axes, width * 2**levels, depth)
        self.up = nn.ModuleList(_Up(axes, w, depth) for w in reversed(widths))

    def forward(self, x: Tensor, boundary: Boundary) -> Tensor:
        kept = []
        for down in self.down:
            own, x = down(x, boundary)
            kept.append(own)
        x = self.middle(x, boundary)
        for up in self.up:
            x = up(x, kept.pop(), boundary)
        return x


class ConvolutionalUNet(nn.Module):
    """Tokens [B, K, inputs] and scalars [B, S] to tokens [B, K, outputs]; zero for a fresh network."""

    def __init__(
        self,
        shapes: Mapping[str, ProblemShape],
        *,
        inputs: int,
        outputs: int,
        extra_scalars: int,
        width: int,
        depth: int,
        levels: int,
    ) -> None:
        """depth: residual blocks on each level, down and up. levels: how often tokens are halved and width doubled.

        Problems of one number of axes share all kernels.
        """
        super().__init__()
        self.shapes = dict(shapes)
        self.lift = nn.Linear(inputs, width)
        self.condition = ProblemConditioning(shapes, width, extra_scalars)
        self.walls = nn.ModuleDict(
            {module_key(name): WallEmbedding(shape.layout, width) for name, shape in shapes.items()}
        )
        self.pyramids = nn.ModuleDict(
            {
                f"axes_{axes}": _Pyramid(axes, width, depth, levels)
                for axes in sorted({len(shape.grid) for shape in shapes.values()})
            }
        )
        self.output = nn.Linear(width, outputs)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, tokens: Tensor, scalars: Tensor, problem: str) -> Tensor:
        shape = self.shapes[problem]
        x = self.walls[module_key(problem)](self.lift(tokens) + self.condition(scalars, problem).unsqueeze(1))
        x = x.transpose(0, 1).unflatten(0, shape.tokens)
        x = self.pyramids[f"axes_{len(shape.grid)}"](x, shape.boundary)
        return self.output(x).flatten(0, len(shape.tokens) - 1).transpose(0, 1)
