"""Dilated residual convolution on the token grid.

The layout of the dilated residual network that is strong on local dynamics in APEBench (Koehler et al. 2024,
arXiv:2411.00180): a lift, residual convolutions whose dilations grow and shrink, a projection, and no normalisation,
which would hide the amplitude that the speed of a wave depends on.

Axes are kept as [*tokens, B, channels]: shifting tokens then moves whole blocks of memory. On two CPU cores a
convolution as one matrix product over shifted copies takes 0.65 of the time of torch's conv1d with circular
padding (forward and backward, 64 x 32 tokens of width 96), and its kernel is a matrix, as Muon wants it.
"""

import itertools
import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ups.models.conditioning import ProblemConditioning
from ups.models.embedding import WallEmbedding, module_key
from ups.models.shape import ProblemShape
from ups.problems import Boundary


class TokenConvolution(nn.Module):
    """Three tokens along every axis, `dilation` apart: [*tokens, B, W] to [*tokens, B, W].

    What lies beyond the boundary: of a periodic axis its other side, of outflow the last token, of a Dirichlet
    wall zero.
    """

    def __init__(self, axes: int, width: int, dilation: int) -> None:
        super().__init__()
        self.axes, self.dilation = axes, dilation
        self.kernel = nn.Linear(3**axes * width, width)
        nn.init.normal_(self.kernel.weight, std=1 / math.sqrt(3**axes * width))
        nn.init.zeros_(self.kernel.bias)

    def forward(self, x: Tensor, boundary: Boundary) -> Tensor:
        padded = x
        for axis in range(self.axes):
            padded = _pad(padded, axis, self.dilation, boundary)
        shifted = [
            padded[
                tuple(
                    slice(o * self.dilation, o * self.dilation + n)
                    for o, n in zip(offsets, x.shape, strict=False)
                )
            ]
            for offsets in itertools.product(range(3), repeat=self.axes)
        ]
        return self.kernel(torch.cat(shifted, dim=-1))


class ConvolutionNetwork(nn.Module):
    """Tokens [B, K, inputs] and scalars [B, S] to tokens [B, K, outputs]; zero for a fresh network."""

    def __init__(
        self,
        shapes: Mapping[str, ProblemShape],
        *,
        inputs: int,
        outputs: int,
        extra_scalars: int,
        width: int,
        dilations: Sequence[int],
    ) -> None:
        """extra_scalars: conditioning scalars beside those of the problem.

        Problems of one number of axes share all kernels.
        """
        super().__init__()
        self.shapes = dict(shapes)
        self.lift = nn.Linear(inputs, width)
        self.condition = ProblemConditioning(shapes, width, extra_scalars)
        self.walls = nn.ModuleDict(
            {module_key(name): WallEmbedding(shape.layout, width) for name, shape in shapes.items()}
        )
        self.convolutions = nn.ModuleDict(
            {
                f"axes_{axes}": nn.ModuleList(
                    TokenConvolution(axes, width, dilation) for dilation in dilations
                )
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
        for convolution in self.convolutions[f"axes_{len(shape.grid)}"].children():
            x = x + F.gelu(convolution(x, shape.boundary), approximate="tanh")
        return self.output(x).flatten(0, len(shape.tokens) - 1).transpose(0, 1)


def _pad(x: Tensor, axis: int, width: int, boundary: Boundary) -> Tensor:
    """`width` more tokens on either side of an axis."""
    first, last = x.narrow(axis, 0, width), x.narrow(axis, x.shape[axis] - width, width)
    match boundary:
        case "periodic":
            before, after = last, first
        case "outflow":
            before = x.narrow(axis, 0, 1).expand_as(first)
            after = x.narrow(axis, x.shape[axis] - 1, 1).expand_as(last)
        case "dirichlet":
            before, after = torch.zeros_like(first), torch.zeros_like(last)
    return torch.cat([before, x, after], dim=axis)
