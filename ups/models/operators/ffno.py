"""The factorized Fourier operator: along each axis by itself, one matrix per wave number.

Layers are those of Tran et al. 2023 (arXiv:2111.13802, equations 7 and 8): what the axes give is added up, goes
through a pointwise perceptron, and is added to what came in. A layer has as many matrices as one axis has wave
numbers, not as their product, and in two axes a step takes a fraction of the Fourier operator's time.

Between walls nothing is periodic. There half of the channels are taken as cosines, the others as sines: of a field
that goes on evenly beyond a wall, or oddly, as its gradient does. (Zeros beyond the walls, which `fno` has, make a grid of
16 x 16 tokens half as large again.)
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ups.models.operators.grid_network import GridNetwork
from ups.models.shape import ProblemShape
from ups.problems import Boundary


def by_walls(shape: ProblemShape) -> str:
    """Problems of one number of axes share all layers if all have walls, or none."""
    return f"axes_{len(shape.grid)}_{'periodic' if shape.boundary == 'periodic' else 'walled'}"


class PeriodicSpectralConvolution(nn.Module):
    """Along the first axis of [n, .., W], wave number k <= modes / 2 is multiplied by its own complex matrix."""

    def __init__(self, width: int, modes: int) -> None:
        super().__init__()
        self.modes = modes
        # Real parts, then imaginary ones: as real matrices the optimiser can make them orthogonal.
        self.weight = nn.Parameter(torch.randn(2 * (modes // 2 + 1), width, width) * (2 * width) ** -0.5)

    def forward(self, x: Tensor) -> Tensor:
        # A transform in less than float32 is not to be had on every device.
        waves = torch.fft.rfft(x.float(), dim=0)[: self.modes // 2 + 1]
        product = torch.bmm(waves.flatten(1, -2), torch.complex(*self.weight.float().chunk(2)))
        return torch.fft.irfft(product.view(waves.shape), n=len(x), dim=0)


class WalledSpectralConvolution(nn.Module):
    """Along the first axis of [n, .., W], the cosines and sines of `modes` half waves have a matrix per number."""

    def __init__(self, width: int, modes: int) -> None:
        super().__init__()
        self.modes = modes
        self.weight = nn.Parameter(torch.randn(modes, width, width) * width**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            cosines, sines = _half_waves(len(x), self.modes, x.device)
            even, odd = x.float().tensor_split(2, dim=-1)
            waves = torch.cat(
                [torch.tensordot(cosines, even, dims=1), torch.tensordot(sines, odd, dims=1)], dim=-1
            )
            product = torch.bmm(waves.flatten(1, -2), self.weight).view(waves.shape)
            even, odd = product.tensor_split(2, dim=-1)
            return torch.cat(
                [torch.tensordot(cosines.T, even, dims=1), torch.tensordot(sines.T, odd, dims=1)], dim=-1
            )


class _Layer(nn.Module):
    """x plus a pointwise perceptron of what the axes give."""

    def __init__(self, axes: int, width: int, modes: int, *, periodic: bool) -> None:
        super().__init__()
        mix = PeriodicSpectralConvolution if periodic else WalledSpectralConvolution
        self.along = nn.ModuleList(mix(width, modes) for _ in range(axes))
        self.inner, self.outer = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        mixed = torch.zeros_like(x)
        for axis, mix in enumerate(self.along):
            mixed = mixed + mix(x.movedim(axis, 0)).movedim(0, axis)
        return x + self.outer(F.gelu(self.inner(mixed), approximate="tanh"))


class FactorizedFourierLayers(nn.Module):
    """Layers one after the other: [*tokens, B, W] to the same."""

    def __init__(self, axes: int, *, periodic: bool, width: int, depth: int, modes: int) -> None:
        """modes: per axis; where it is periodic negative wave numbers are counted, between walls half waves."""
        super().__init__()
        self.blocks = nn.ModuleList(_Layer(axes, width, modes, periodic=periodic) for _ in range(depth))

    def forward(self, x: Tensor, boundary: Boundary, condition: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


@lru_cache
def _half_waves(points: int, modes: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Orthonormal cosines of 0 .. modes - 1 half waves and sines of 1 .. modes, at cell centres: [modes, points]."""
    place = (torch.arange(points, device=device) + 0.5) / points
    number = torch.arange(modes, device=device)[:, None]
    cosines, sines = (torch.pi * number * place).cos(), (torch.pi * (number + 1) * place).sin()
    return F.normalize(cosines, dim=1), F.normalize(sines, dim=1)


def network(
    shapes: Mapping[str, ProblemShape], *, width: int, depth: int, modes: int, **ends: Any
) -> nn.Module:
    """See `ups.models.operators`."""
    return GridNetwork(
        shapes,
        lambda shape: FactorizedFourierLayers(
            len(shape.grid), periodic=shape.boundary == "periodic", width=width, depth=depth, modes=modes
        ),
        width=width,
        perceptrons=True,
        shared=by_walls,
        **ends,
    )
