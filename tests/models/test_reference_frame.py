"""Frames: there and back, the same for all that differs by a symmetry, and drawn as they are said to be drawn."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ups.data.dataset import conditioning_scalars
from ups.models.reference_frame import ReferenceFrame
from ups.models.shape import ProblemShape
from ups.problems import PROBLEMS, Symmetry

SHAPES = {
    "burgers": ProblemShape("burgers1d", (32,), (8,), (0,), "periodic"),
    "odd": ProblemShape("burgers1d", (27,), (9,), (0,), "periodic"),
    "advection": ProblemShape("advection1d", (32,), (8,), (0,), "periodic"),
    "darcy": ProblemShape("darcy2d", (12, 12), (3, 3), (1,), "dirichlet"),
    "flow": ProblemShape("compressible1d", (32,), (8,), (0, 1, 2), "periodic"),
    "open flow": ProblemShape("compressible1d", (32,), (8,), (0, 1, 2), "outflow"),
    "conserved flow": ProblemShape("compressible1d", (32,), (8,), (0, 1, 2), "periodic", "conserved"),
}
CASES = [
    (name, symmetry)
    for name, shape in SHAPES.items()
    for symmetry in shape.problem.has(shape.boundary, shape.variables)
]
PARAMETERS = {"nu": 0.02, "beta": 3.0, "eta": 0.1, "zeta": 0.1}
ELAPSED = torch.tensor([0.0, 0.3, 0.7])


def parameters(shape: ProblemShape) -> dict[str, float]:
    return {parameter.name: PARAMETERS[parameter.name] for parameter in shape.problem.parameters}


def smooth(shape: ProblemShape, *, count: int = 6, frames: int = 3, seed: int = 0) -> Tensor:
    """Random fields [n, t, *grid, C] of waves that the grid resolves, their cubes too."""
    generator = torch.Generator().manual_seed(seed)
    if len(shape.grid) == 2:
        return torch.randn(count, frames, *shape.grid, shape.channels, generator=generator)
    wave = torch.arange(1, 5)
    x = (torch.arange(shape.grid[0]) + 0.5) / shape.grid[0]
    size, phase = torch.randn(2, count, frames, shape.channels, len(wave), generator=generator)
    waves = size[..., None] * (2 * torch.pi * (wave[:, None] * x + phase[..., None])).sin()
    level = torch.randn(count, 1, shape.channels, 1, generator=generator)
    return (waves.sum(dim=-2) + level).movedim(2, 3)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(shape: ProblemShape, fields: Tensor, *symmetries: Symmetry, seed: int = 0) -> ReferenceFrame:
    return ReferenceFrame.random(shape, fields[:, 0], symmetries, generator(seed))


def canonical(shape: ProblemShape, fields: Tensor, elapsed: Tensor = ELAPSED) -> Tensor:
    return ReferenceFrame.of(shape, fields[:, 0], parameters(shape)).enter(fields, elapsed)


@pytest.mark.parametrize(("name", "symmetry"), CASES)
def test_what_enters_a_frame_leaves_it_unchanged(name, symmetry):
    shape = SHAPES[name]
    fields = smooth(shape)
    exact = ReferenceFrame.of(replace(shape, exact=(symmetry,)), fields[:, 0], parameters(shape))
    frames = [drawn(shape, fields, symmetry), exact]
    if symmetry == "scaling" and shape.problem.symmetries.scaled_by is None:
        assert torch.equal(exact.scale, torch.ones_like(exact.scale)), "the operator's business"
        frames.pop()
    for frame in frames:
        inside = frame.enter(fields, ELAPSED)
        assert inside.shape == fields.shape
        changed = (inside - fields).flatten(1).abs().amax(dim=1) > 1e-3
        assert changed.any(), "a frame that moves nothing proves nothing"
        torch.testing.assert_close(frame.leave(inside, ELAPSED), fields, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", SHAPES)
def test_all_symmetries_together_leave_as_they_entered(name):
    shape = SHAPES[name]
    every = shape.problem.has(shape.boundary, shape.variables)
    fields = smooth(shape)
    frames = [
        ReferenceFrame.of(replace(shape, exact=every), fields[:, 0], parameters(shape)),
        drawn(shape, fields, *every),
    ]
    for frame in frames:
        torch.testing.assert_close(
            frame.leave(frame.enter(fields, ELAPSED), ELAPSED), fields, rtol=1e-5, atol=2e-5
        )


@pytest.mark.parametrize("name", SHAPES)
def test_what_differs_by_symmetries_is_one_in_its_frame(name):
    """Each alone and all that a frame removes together; a field's own amplitude is no part of a frame."""
    shape = SHAPES[name]
    by_field = shape.problem.symmetries.scaled_by in shape.names
    removed = [s for s in shape.problem.has(shape.boundary, shape.variables) if s != "scaling" or by_field]
    fields = smooth(shape)
    for used in (*([symmetry] for symmetry in removed), removed):
        exact = replace(shape, exact=tuple(used))
        for seed in range(3):
            other = drawn(shape, fields, *used, seed=seed).enter(fields, ELAPSED)
            assert (other - fields).abs().max() > 1e-2
            torch.testing.assert_close(
                canonical(exact, other), canonical(exact, fields), rtol=1e-4, atol=1e-4
            )


def test_frames_are_where_they_are_said_to_be():
    shape = replace(SHAPES["burgers"], exact=("galilean", "shift", "reflection"))
    first = canonical(shape, smooth(shape, count=50))[:, 0, :, 0]
    assert first.mean(dim=1).abs().max() < 1e-5
    phase = torch.fft.rfft(first, dim=1)[:, 1]
    assert (phase.imag.abs() < 1e-4 * phase.real).all()
    assert (first.pow(3).mean(dim=1) > 0).all()
    square = replace(SHAPES["darcy"], exact=("square",))
    given = canonical(square, smooth(square, count=50))[:, 0, ..., 0]
    place = torch.linspace(-0.5, 0.5, 12)
    x, y = (given * place[:, None]).mean(dim=(1, 2)), (given * place).mean(dim=(1, 2))
    assert (y >= 0).all()
    assert (x >= y).all()


def test_a_force_is_divided_out_of_the_field_that_is_proportional_to_it():
    shape = replace(SHAPES["darcy"], exact=("scaling",))
    fields = smooth(shape)
    inside = canonical(shape, fields)
    assert torch.equal(inside[..., 0], fields[..., 0])
    torch.testing.assert_close(inside[..., 1], fields[..., 1] / 3)
    with pytest.raises(ValueError, match="needs the parameters"):
        ReferenceFrame.of(shape, fields[:, 0])


def test_a_moving_frame_goes_with_the_mean_in_domain_lengths():
    """A wave that the flow carries stands still in it. The second domain is twice as long."""
    for name, channel in (("burgers", 0), ("flow", 1)):
        shape = replace(SHAPES[name], exact=("galilean",))
        x = (torch.arange(32) + 0.5) / 32
        speed = 0.8
        along = x - speed / shape.length * ELAPSED[:, None]
        wave = (2 * torch.pi * along).sin() + 0.3 * (6 * torch.pi * along).cos()
        fields = wave[None, :, :, None].repeat(1, 1, 1, shape.channels)
        fields[..., channel] += speed
        inside = canonical(shape, fields)
        torch.testing.assert_close(inside, inside[:, :1].expand_as(inside), rtol=0, atol=1e-5)
        torch.testing.assert_close(inside[0, 0, :, channel], wave[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["burgers", "flow"])
def test_a_window_is_entered_at_its_own_time(name):
    """Trajectories that were met at different times: [n, t] elapsed."""
    shape = replace(SHAPES[name], exact=("galilean", "shift"))
    fields = smooth(shape, frames=5)
    elapsed = 0.2 * torch.arange(5)
    frame = ReferenceFrame.of(shape, fields[:, 0])
    whole = frame.enter(fields, elapsed)
    starts = torch.tensor([0, 3, 1, 2, 0, 3])
    rows = torch.arange(6)[:, None], starts[:, None] + torch.arange(2)
    torch.testing.assert_close(frame.enter(fields[rows], elapsed[rows[1]]), whole[rows], rtol=1e-5, atol=1e-5)


def test_drawn_frames_are_shifted_by_whole_points_and_turned_half_of_the_time():
    shape = SHAPES["burgers"]
    fields = smooth(shape, count=400, frames=1)
    shifted = drawn(shape, fields, "shift")
    points = shifted.offset * 32
    assert torch.equal(points, points.round())
    assert len(points.unique()) == 32
    for row in range(5):
        expected = fields[row].roll(-int(points[row]), dims=1)
        torch.testing.assert_close(
            shifted[slice(row, row + 1)].enter(fields[row : row + 1], torch.zeros(1))[0],
            expected,
            rtol=1e-5,
            atol=1e-5,
        )
    reversed_ = drawn(shape, fields, "reflection").reversed
    assert 0.4 < reversed_.float().mean() < 0.6
    square = drawn(SHAPES["darcy"], smooth(SHAPES["darcy"], count=400, frames=1), "square")
    kinds = 4 * square.exchanged.int() + 2 * square.reversed[:, 0].int() + square.reversed[:, 1].int()
    assert (kinds.bincount(minlength=8) > 20).all(), "all eight"
    scale = drawn(shape, fields, "scaling").scale
    assert 0.5 <= scale.min() < 0.55
    assert 1.9 < scale.max() <= 2.0
    boost = drawn(shape, fields, "galilean")
    assert torch.equal(boost.velocity, boost.level[:, 0])
    unit = boost.level[:, 0] / fields[:, 0, :, 0].std(dim=1)
    assert abs(unit.mean().item()) < 0.15
    assert unit.std().item() == pytest.approx(1, abs=0.15)
    assert torch.equal(drawn(shape, fields, "galilean").level, boost.level), "a function of the generator"


@pytest.mark.parametrize("name", ["burgers", "advection", "darcy"])
def test_numbers_are_those_of_the_scaled_problem(name):
    """With fields divided by a, time and parameters change as the equation says."""
    shape = SHAPES[name]
    fields = smooth(shape, count=3)
    frame = drawn(shape, fields, "scaling")
    (channel,) = [shape.names.index(field) for field in shape.problem.symmetries.scaling]
    times = torch.tensor([0.0, 0.1, 0.2], dtype=torch.float64).numpy()
    problem, own = PROBLEMS[shape.equation], parameters(shape)
    scalars = torch.tensor(conditioning_scalars(problem, times, own))
    found = frame.conditioning(scalars)
    for row, factor in enumerate(frame.scale[:, channel].tolist()):
        changed = {
            "burgers": (factor * times, {"nu": own.get("nu", 0) / factor}),
            "advection": (times, own),
            "darcy": (times, {"beta": own.get("beta", 0) / factor}),
        }[name]
        assert found[row].tolist() == pytest.approx(conditioning_scalars(problem, *changed), rel=1e-5)
        ratio = 1.0 if name == "darcy" else changed[0][1] / times[1]
        assert frame.times(ELAPSED)[row].tolist() == pytest.approx((ratio * ELAPSED).tolist())


def test_repeated_and_chosen_frames_are_those_of_their_trajectories():
    shape = replace(SHAPES["burgers"], exact=("galilean", "shift", "reflection"))
    fields = smooth(shape)
    frame = ReferenceFrame.of(shape, fields[:, 0])
    inside = frame.enter(fields, ELAPSED)
    members = frame.repeat(3).enter(fields.repeat_interleave(3, dim=0), ELAPSED)
    assert torch.equal(members.unflatten(0, (6, 3)), inside[:, None].expand(-1, 3, -1, -1, -1))
    torch.testing.assert_close(frame[2:4].enter(fields[2:4], ELAPSED), inside[2:4], rtol=1e-6, atol=1e-6)


def test_a_shift_of_an_unresolved_wave_keeps_what_both_directions_share():
    """The highest of an even number of points, the one thing that a shift by part of a point cannot move."""
    shape = SHAPES["burgers"]
    highest = (-1.0) ** torch.arange(32)
    fields = highest.view(1, 1, 32, 1)
    at_rest = ReferenceFrame.at_rest(shape, fields[:, 0])
    for part in (0.25, 0.5, 1.0):
        moved = replace(at_rest, offset=torch.tensor([part / 32])).enter(fields, torch.zeros(1))
        torch.testing.assert_close(moved, math.cos(math.pi * part) * fields, rtol=0, atol=1e-5)
