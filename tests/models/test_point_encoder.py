"""What an encoder of points promises whatever its weights, and how good its interpolation is without any training."""

import pytest
import torch
from tiny import LINE, NETWORK, PROBLEM, SQUARE, build, fresh, waves
from torch import Tensor

import ups.models.encoders.points as module
from ups.models.autoencoder import Autoencoder
from ups.models.encoders.points import PointEncoder
from ups.models.interpolation import at_points
from ups.models.shape import ProblemShape

POINTS = {"kind": "points", "points": 64, "radius": 0.2, "neighbours": 8, "smoothness": 2} | NETWORK
TORUS = ProblemShape(equation="darcy2d", grid=(16, 16), tokens=(4, 4), scored=(1,), boundary="periodic")
SHAPES = {"line": LINE, "square": SQUARE, "torus": TORUS}
WRAPPING = ["line", "torus"]


def encoder(*, random: bool = True, **changes: object) -> PointEncoder:
    make = build if random else fresh
    model = make("autoencoder", shapes=SHAPES, encoder=POINTS | changes, decoder=NETWORK | {"depth": 0})
    assert isinstance(model, Autoencoder)
    found = model.encoder
    assert isinstance(found, PointEncoder)
    return found.requires_grad_(False)


def observed(
    name: str, *, points: int = 300, frames: int = 2, node: float | None = None
) -> tuple[Tensor, Tensor]:
    """Values of random waves [2, frames, points, C] at random coordinates [2, points, axes], the eighth of which may be given."""
    generator = torch.Generator().manual_seed(0)
    shape = SHAPES[name]
    coordinates = torch.rand(2, points, len(shape.grid), generator=generator)
    if node is not None:
        coordinates[:, 7] = node
    numbers = torch.randint(-2, 3, (2, frames, 5, shape.channels, len(shape.grid)), generator=generator)
    phases = torch.rand(2, frames, 1, 5, shape.channels, generator=generator)
    turns = torch.einsum("npa,ntjca->ntpjc", coordinates, numbers.float()) + phases
    return (2 * torch.pi * turns).sin().sum(dim=3), coordinates


@pytest.mark.parametrize("name", SHAPES)
def test_the_order_of_the_points_is_of_no_meaning(name):
    model, (values, places) = encoder(), observed(name)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(1))
    fields = model.from_points(values, places, name)
    assert fields.shape == (2, 2, *SHAPES[name].grid, SHAPES[name].channels)
    torch.testing.assert_close(model.from_points(values[:, :, order], places[:, order], name), fields)
    # Which point has which value is.
    assert not torch.allclose(model.from_points(values, places[:, order], name), fields, atol=0.1)


@pytest.mark.parametrize("name", WRAPPING)
def test_points_that_move_by_a_patch_around_the_domain_move_the_fields(name):
    model, (values, places) = encoder(), observed(name)
    shape = SHAPES[name]
    fields = model.from_points(values, places, name)
    for axis, patch in enumerate(shape.token_grid.patch):
        moved = places.clone()
        moved[..., axis] = (moved[..., axis] + patch / shape.grid[axis]) % 1
        there = model.from_points(values, moved, name)
        torch.testing.assert_close(there, fields.roll(patch, dims=2 + axis), atol=2e-4, rtol=1e-4)


def test_walls_are_not_wrapped_around():
    """Values beyond a wall tell nothing of the other end's."""
    model = encoder(depth=0)
    values, places = observed("square")
    changed = torch.where(places[:, None, :, :1] > 0.5, values + 10.0, values)
    # As the mean over all points and their deviation are taken out and put back, interpolation does not see them.
    difference = model.from_points(changed, places, "square") - model.from_points(values, places, "square")
    torch.testing.assert_close(difference[:, :, :4], torch.zeros(2, 2, 4, 16, 2), atol=2e-4, rtol=0)


@pytest.mark.parametrize("name", SHAPES)
def test_constants_and_factors_pass_through(name):
    model, (values, places) = encoder(), observed(name)
    fields = model.from_points(values, places, name)
    there = model.from_points(3 * values + 2, places, name)
    torch.testing.assert_close(there, 3 * fields + 2, atol=1e-3, rtol=1e-3)
    flat = model.from_points(torch.full_like(values, 1.5), places, name)
    torch.testing.assert_close(flat, torch.full_like(flat, 1.5), atol=1e-5, rtol=0)
    assert not model.from_points(torch.zeros_like(values), places, name).any()


@pytest.mark.parametrize("name", SHAPES)
def test_what_is_seen_on_a_supernode_is_kept_by_any_network(name):
    """Where a point lies the interpolation has no doubt, and the correction no say."""
    grid = SHAPES[name].grid
    model, (values, places) = (
        encoder(),
        observed(name, points=40 if len(grid) == 1 else 256, node=4.5 / grid[0]),
    )
    fields = model.from_points(values, places, name)
    seen = fields[(slice(None), slice(None), *(4,) * len(grid))]
    torch.testing.assert_close(seen, values[:, :, 7], atol=1e-2, rtol=0)
    assert (fields - encoder(depth=0).from_points(values, places, name)).abs().max() > 0.02


@pytest.mark.parametrize("name", SHAPES)
def test_points_that_fill_up_a_shorter_set_count_for_nothing(name):
    model, (values, places) = encoder(), observed(name)
    present = torch.ones(2, 300, dtype=torch.bool)
    present[1, 200:] = False
    poisoned = torch.where(present[:, None, :, None], values, 1e4)
    fields = model.from_points(poisoned, places, name, present)
    torch.testing.assert_close(fields[:1], model.from_points(values[:1], places[:1], name))
    torch.testing.assert_close(
        fields[1:], model.from_points(values[1:, :, :200], places[1:, :200], name), atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize("name", SHAPES)
def test_pieces_of_the_work_give_the_same(name, monkeypatch):
    model, (values, places) = encoder(), observed(name, frames=3)
    whole = model.from_points(values, places, name)
    monkeypatch.setattr(module, "_PAIRS_AT_ONCE", 1000)
    monkeypatch.setattr(module, "_EDGES_AT_ONCE", 1)
    torch.testing.assert_close(model.from_points(values, places, name), whole, atol=1e-5, rtol=1e-5)


def test_memory_is_bounded(monkeypatch):
    """No tensor of all distances is made."""
    largest = []
    join = PointEncoder._joined
    monkeypatch.setattr(module, "_PAIRS_AT_ONCE", 10_000)
    monkeypatch.setattr(
        PointEncoder,
        "_joined",
        lambda self, points, centres, *rest: (
            largest.append(len(points) * points.shape[1] * len(centres)) or join(self, points, centres, *rest)
        ),
    )
    values, places = observed("square")
    encoder().from_points(values, places, "square")
    assert max(largest) <= 10_000
    assert sum(largest) == 2 * 300 * 256


def test_gradients_reach_values_coordinates_and_all_weights():
    model = encoder().requires_grad_(True)
    model.linear.requires_grad_(False)
    values, places = (part.requires_grad_() for part in observed("line"))
    model.from_points(values, places, "line").square().mean().backward()
    assert values.grad is not None
    assert places.grad is not None
    assert torch.isfinite(places.grad).all()
    assert values.grad.any()
    assert places.grad.any()
    own = [p for name, p in model.named_parameters() if "square" not in name and "torus" not in name]
    assert all(p.grad is not None and p.grad.any() for p in own if p.requires_grad)


def test_the_gradient_by_the_coordinates_is_that_of_differences():
    """Of the interpolation and the network alike, in float64 as far as they go."""
    model = encoder()
    values, places = observed("line", points=120, frames=1)
    places.requires_grad_()
    (gradient,) = torch.autograd.grad(model.from_points(values, places, "line").square().sum(), places)
    place = gradient[0, :, 0].abs().argmax()
    step = 1e-5
    ends = []
    for sign in (1, -1):
        moved = places.detach().clone()
        moved[0, place, 0] += sign * step
        ends.append(model.from_points(values, moved, "line").double().square().sum())
    assert (ends[0] - ends[1]).item() / (2 * step) == pytest.approx(gradient[0, place, 0].item(), rel=0.1)


def test_on_a_line_without_smoothness_it_is_straight_between_neighbours():
    model = encoder(random=False, smoothness=0, depth=0, neighbours=16)
    _, places = observed("line", points=64)
    values = waves(2, 1)[:, 0]  # on the grid
    there = at_points(values[:, None], places, LINE.token_grid)
    found = model.from_points(there, places, "line")[:, 0, :, 0]
    grid = (torch.arange(32) + 0.5) / 32
    for row in range(2):
        order = places[row, :, 0].argsort()
        along, heights = places[row, order, 0], there[row, 0, order, 0]
        # Once around on both sides.
        along = torch.cat([along - 1, along, along + 1])
        heights = heights.repeat(3)
        right = torch.searchsorted(along, grid)
        share = (grid - along[right - 1]) / (along[right] - along[right - 1])
        expected = heights[right - 1] * (1 - share) + heights[right] * share
        torch.testing.assert_close(found[row], expected, atol=1e-4, rtol=1e-4)


def test_untrained_it_is_far_better_than_straight_lines():
    _, places = observed("line", points=64)
    values = waves(2, 1)
    there = at_points(values, places, LINE.token_grid)

    def error(smoothness: int) -> float:
        model = encoder(random=False, smoothness=smoothness)
        return ((model.from_points(there, places, "line") - values).norm() / values.norm()).item()

    assert error(2) < error(1) / 2 < error(0) / 8


def test_a_supernode_without_a_point_is_no_number():
    model, (values, places) = encoder(), observed("line")
    fields = model.from_points(values, 0.5 * places, "line")
    assert fields[0, 0, 24].isnan().all()  # at 0.77, and points within 0.2 of it there are none


def test_the_tokens_are_those_of_the_fields():
    """From points to tokens, and by the linear decoder back to fields: nothing is lost but what the points do not tell."""
    model = build("autoencoder", shapes={PROBLEM: LINE}, encoder=POINTS, decoder=NETWORK | {"depth": 0})
    assert isinstance(model, Autoencoder)
    model.set_basis(PROBLEM, torch.eye(4))
    values = waves(2, 1)[:, 0]
    places = observed("line")[1]
    there = model.encoder.from_points(at_points(values[:, None], places, LINE.token_grid), places, PROBLEM)
    decoded = model(values, None, PROBLEM, None, places)
    torch.testing.assert_close(decoded, there[:, 0].flatten(1, -2), atol=1e-5, rtol=1e-5)
