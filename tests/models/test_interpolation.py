"""Values between points: exact for what a periodic grid can hold, of fourth order between walls."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from ups.models.interpolation import interpolate
from ups.models.token_grid import TokenGrid, cell_centres

ANYWHERE = torch.rand(200, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
FEW = ANYWHERE[:5]  # gathered, where many are one matrix product


def band_limited(x: Tensor, highest: int, seed: int = 0) -> Tensor:
    """Random waves up to a wave number, at x [n, 1]: [n, 2], float64."""
    generator = torch.Generator().manual_seed(seed)
    size, phase = torch.randn(2, 2, highest, generator=generator, dtype=torch.float64)
    wave = torch.arange(1, highest + 1)
    angle = 2 * torch.pi * (wave * x[:, None] + phase)
    return 0.7 + (size * angle.sin()).sum(dim=-1) / math.sqrt(highest)


@pytest.mark.parametrize("coordinates", [ANYWHERE, FEW], ids=["many", "few"])
@pytest.mark.parametrize("points", [8, 15, 32, 33, 256])
def test_a_periodic_field_is_exact_up_to_the_highest_wave_that_the_grid_tells_apart(points, coordinates):
    layout = TokenGrid((points,), (1,), (True,))
    highest = (points - 1) // 2
    values = band_limited(cell_centres([points]).double(), highest)
    found = interpolate(values.float()[None], coordinates, layout)[0]
    torch.testing.assert_close(found.double(), band_limited(coordinates, highest), rtol=0, atol=1e-5)
    # Of an even number of points the next wave has no phase, and an odd number's next is another one.
    aliased = band_limited(cell_centres([points]).double(), highest + 1)
    wrong = interpolate(aliased.float()[None], ANYWHERE, layout)[0] - band_limited(ANYWHERE, highest + 1)
    assert wrong.abs().max() > 1e-2


def field(x: Tensor) -> Tensor:
    """Smooth, and not periodic."""
    return (x.exp() * (3 * x).sin()).expand(-1, 1)


@pytest.mark.parametrize("coordinates", [ANYWHERE, ANYWHERE[:20] / 200], ids=["anywhere", "beside a wall"])
def test_between_walls_it_converges_at_fourth_order(coordinates):
    errors = []
    for points in (16, 32, 64, 128):
        layout = TokenGrid((points,), (1,), (False,))
        values = field((torch.arange(points, dtype=torch.float64)[:, None] + 0.5) / points)[None]
        errors.append((interpolate(values, coordinates, layout)[0] - field(coordinates)).abs().max().item())
    orders = [math.log2(coarse / fine) for coarse, fine in pairwise(errors)]
    assert min(orders) > 3.7
    assert max(orders) < 4.6
    assert errors[-1] < 1e-5


@pytest.mark.parametrize("degree", range(4))
@pytest.mark.parametrize("points", [4, 5, 32])
def test_between_walls_cubics_are_exact_up_to_the_walls(points, degree):
    layout = TokenGrid((points,), (1,), (False,))
    x = (torch.arange(points, dtype=torch.float64)[:, None] + 0.5) / points
    everywhere = torch.cat([ANYWHERE, torch.tensor([[0.0], [1.0]])])
    found = interpolate((x**degree)[None], everywhere, layout)[0]
    torch.testing.assert_close(found, everywhere**degree, rtol=0, atol=1e-10)


@pytest.mark.parametrize("points", [1, 2, 3])
def test_few_points_between_walls_make_the_polynomial_that_they_can(points):
    layout = TokenGrid((points,), (1,), (False,))
    x = (torch.arange(points, dtype=torch.float64)[:, None] + 0.5) / points
    for degree in range(points):
        found = interpolate((x**degree)[None], ANYWHERE, layout)[0]
        torch.testing.assert_close(found, ANYWHERE**degree, rtol=0, atol=1e-10)


@pytest.mark.parametrize("periodic", [(True, True), (True, False), (False, True), (False, False)])
def test_two_axes_are_interpolated_each_in_its_own_way(periodic):
    layout = TokenGrid((9, 12), (3, 3), periodic)

    def product(places: Tensor) -> Tensor:
        parts = [
            (2 * torch.pi * places[:, axis]).sin() + 0.2 if wraps else places[:, axis] ** 3
            for axis, wraps in enumerate(periodic)
        ]
        return (parts[0] * parts[1])[:, None]

    values = product(cell_centres((9, 12)).double()).view(1, 9, 12, 1)
    places = torch.rand(60, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for some in (places, places[:3]):
        torch.testing.assert_close(interpolate(values, some, layout)[0], product(some), rtol=0, atol=1e-6)


@pytest.mark.parametrize("periodic", [(True, True), (True, False), (False, False)])
@pytest.mark.parametrize("grid", [(8, 8), (9, 12), (16, 16)])
def test_at_its_points_a_field_is_itself(grid, periodic):
    layout = TokenGrid(grid, (1, 1), periodic)
    values = torch.randn(2, *grid, 3, generator=torch.Generator().manual_seed(0))
    centres = cell_centres(grid)
    torch.testing.assert_close(
        interpolate(values, centres, layout), values.flatten(1, 2), rtol=1e-5, atol=2e-5
    )
    torch.testing.assert_close(
        interpolate(values, centres[7:9], layout), values.flatten(1, 2)[:, 7:9], rtol=1e-5, atol=2e-5
    )


def test_a_gradient_flows_to_the_values_alone():
    layout = TokenGrid((8,), (4,), (True,))
    values = torch.randn(1, 8, 1, requires_grad=True)
    interpolate(values, ANYWHERE[:3], layout).sum().backward()
    assert values.grad is not None
    # Weights of a query add up to one: a constant is a constant anywhere.
    assert values.grad.sum().item() == pytest.approx(3, abs=1e-5)


def test_between_walls_a_value_is_made_of_the_four_nearest_points():
    layout = TokenGrid((12,), (1,), (False,))
    matrix = interpolate(torch.eye(12).double()[None].movedim(1, 2), ANYWHERE, layout)[0]
    inside = (ANYWHERE[:, 0] > 2 / 12) & (ANYWHERE[:, 0] < 10 / 12)
    distance = (ANYWHERE * 12 - 0.5 - torch.arange(12)).abs()[inside]
    assert ((matrix[inside] != 0) == (distance < 2)).all()
