"""Maps of the factorized Fourier operator whose answers are known."""

import pytest
import torch
from torch import Tensor

from ups.models.operators.ffno import (
    FactorizedFourierLayers,
    PeriodicSpectralConvolution,
    WalledSpectralConvolution,
)

WAVES = torch.arange(1, 7)[:, None]
AMPLITUDE, PHASE = torch.rand(2, 6, 1, generator=torch.Generator().manual_seed(0))


def centres(points: int) -> Tensor:
    return (torch.arange(points) + 0.5) / points


@pytest.mark.parametrize("points", [16, 24])
def test_a_periodic_mix_can_shift_by_a_fraction_of_a_point(points):
    """One set of matrices for grids of any number of points."""
    mix, distance = PeriodicSpectralConvolution(1, 12).requires_grad_(False), 0.013

    def u(moved: float) -> Tensor:
        angle = 2 * torch.pi * (WAVES * (centres(points) - moved) + PHASE)
        return (AMPLITUDE[:5] * angle[:5].sin()).sum(0)[:, None, None]

    multiplier = torch.polar(torch.ones(7), -2 * torch.pi * torch.arange(7) * distance)
    mix.weight[:, 0, 0] = torch.cat([multiplier.real, multiplier.imag])
    torch.testing.assert_close(mix(u(0.0)), u(distance), rtol=0, atol=1e-5)


@pytest.mark.parametrize("points", [16, 24])
def test_a_walled_mix_can_solve_poissons_equation(points):
    """-u'' = f with u = 0 at both walls: the sine of k half waves is divided by (pi k)^2."""
    mix = WalledSpectralConvolution(2, 8).requires_grad_(False)
    half_waves = AMPLITUDE * (torch.pi * WAVES * centres(points)).sin()
    force = half_waves.sum(0)
    solution = (half_waves / (torch.pi * WAVES) ** 2).sum(0)
    mix.weight.zero_()
    mix.weight[:, 1, 1] = 1 / (torch.pi * torch.arange(1, 9)) ** 2
    given = torch.stack([torch.ones(points), force], dim=-1)[:, None]
    found = mix(given)
    torch.testing.assert_close(found[:, 0, 1], solution, rtol=0, atol=1e-6)
    assert found[..., 0].abs().max() == 0


@pytest.mark.parametrize("periodic", [True, False])
def test_both_axes_are_mixed_alike_and_each_line_by_itself(periodic):
    """A point changes its row and its column after one layer, and all of the square after two."""
    for depth in (1, 2):
        torch.manual_seed(0)
        layers = FactorizedFourierLayers(2, periodic=periodic, width=8, depth=depth, modes=8)
        x = torch.randn(8, 8, 1, 8, generator=torch.Generator().manual_seed(1))
        other = x.clone()
        other[2, 3] += 1.0
        rest = ("periodic", torch.zeros(1, 8))
        change = (layers(other, *rest) - layers(x, *rest)).abs().amax(dim=(2, 3))
        reached = change > 1e-6
        if depth == 1:
            assert reached[2].all()
            assert reached[:, 3].all()
            assert reached.sum() == 15
        else:
            assert reached.all()
