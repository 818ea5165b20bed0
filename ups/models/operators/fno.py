"""The Fourier neural operator: pointwise maps, and one matrix per wave number.

Layer for layer that of the `neuraloperator` package 2.0 without its grid embedding, which would break the shift
symmetry (tested equal to it, weight by weight). The package itself is no dependency: it needs wandb, pytest and
scipy to be imported, and its complex weights fit neither fused AdamW nor mixed precision. Here they are real pairs.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ups.models.operators.grid_network import GridNetwork
from ups.models.shape import ProblemShape
from ups.problems import Boundary


class SpectralConvolution(nn.Module):
    """[B, *tokens, W] to [B, *tokens, W]: wave number k is multiplied by its own matrix R_k, those beyond `modes` / 2
    are dropped (Li et al. 2021, arXiv:2010.08895, equations 4 and 5).

    R_k is [wave numbers, inputs, outputs, real and imaginary part]; of the last axis wave numbers 0 to modes / 2 are
    kept, of the others -modes / 2 to modes / 2 - 1, in this order. The variance of R_k keeps that of the field.
    """

    def __init__(self, axes: int, width: int, modes: int) -> None:
        super().__init__()
        self.axes, self.modes = axes, modes
        kept = (*(modes,) * (axes - 1), modes // 2 + 1)
        self.weight = nn.Parameter(torch.randn(*kept, width, width, 2) * (2 * width) ** -0.5)
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        space = tuple(range(1, 1 + self.axes))
        # A transform in less than float32 is not to be had on every device.
        waves = torch.fft.rfftn(x.float(), dim=space)
        turned, half = space[:-1], (self.modes // 2,) * (self.axes - 1)
        if turned:
            waves = waves.roll(half, turned)
        region = (slice(None), *(slice(self.modes),) * (self.axes - 1), slice(self.modes // 2 + 1))
        product = torch.einsum("b...i,...io->b...o", waves[region], torch.view_as_complex(self.weight))
        kept = torch.zeros_like(waves)
        kept[region] = product
        if turned:
            kept = kept.roll(tuple(-h for h in half), turned)
        return torch.fft.irfftn(kept, s=x.shape[1:-1], dim=space) + self.bias


class _Layer(nn.Module):
    """A spectral convolution beside a pointwise map, then a pointwise perceptron beside a gate."""

    def __init__(self, axes: int, width: int, modes: int) -> None:
        super().__init__()
        self.spectral = SpectralConvolution(axes, width, modes)
        self.skip = nn.Linear(width, width, bias=False)
        self.inner, self.outer = nn.Linear(width, width // 2), nn.Linear(width // 2, width)
        self.gate = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor, *, last: bool) -> Tensor:
        """The last layer ends without its two activations."""
        y = self.spectral(x) + self.skip(x)
        y = y if last else F.gelu(y)
        y = self.outer(F.gelu(self.inner(y))) + self.gate * x
        return y if last else F.gelu(y)


class FourierLayers(nn.Module):
    """Layers one after the other: [*tokens, B, W] to the same."""

    def __init__(self, axes: int, *, width: int, depth: int, modes: int, padding: int) -> None:
        """padding: tokens of zeros beyond the end of an axis with walls, for what Fourier makes periodic."""
        super().__init__()
        self.axes, self.padding = axes, padding
        self.blocks = nn.ModuleList(_Layer(axes, width, modes) for _ in range(depth))

    def forward(self, x: Tensor, boundary: Boundary, condition: Tensor) -> Tensor:
        tokens, padding = x.shape[: self.axes], 0 if boundary == "periodic" else self.padding
        y = F.pad(x.movedim(-2, 0), (0, 0, *(0, padding) * self.axes)).contiguous()
        for block in self.blocks:
            y = block(y, last=block is self.blocks[-1])
        return y[(slice(None), *(slice(n) for n in tokens))].movedim(0, -2)


def network(
    shapes: Mapping[str, ProblemShape], *, width: int, depth: int, modes: int, padding: int, **ends: Any
) -> nn.Module:
    """See `ups.models.operators`."""
    return GridNetwork(
        shapes,
        lambda shape: FourierLayers(len(shape.grid), width=width, depth=depth, modes=modes, padding=padding),
        width=width,
        perceptrons=True,
        **ends,
    )
