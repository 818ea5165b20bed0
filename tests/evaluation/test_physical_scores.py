"""What the equation says of a solution, of what is none, and of what the grid cannot show."""

import importlib
import itertools
import math

import pytest
import torch
from torch import Tensor

from ups.config.physical_scores import PHYSICAL_SCORES, REFINED, scores_of
from ups.evaluation.physical_scores import Physics, Scored
from ups.models.shape import ProblemShape
from ups.physics.advection import solve_advection
from ups.physics.burgers import solve_burgers
from ups.physics.compressible import solve_compressible
from ups.physics.darcy import solve_darcy_steady
from ups.physics.refinement import linear, trigonometric
from ups.problems import PROBLEMS
from ups.problems.ideal_gas import to_conserved

STEP, POINTS, FRAMES = 0.05, 64, 5


def physics(equation: str, *, points: int = POINTS, refinement: int = 1, **changes) -> Physics:
    """Scored by the residual alone, unless `weights` say otherwise."""
    problem = PROBLEMS[equation]
    grid = (points,) * len(problem.axes)
    scored = tuple(channel for channel, field in enumerate(problem.fields) if not field.given)
    shape = ProblemShape(equation, grid, grid, scored, problem.boundaries[0], **changes.pop("shape", {}))
    parameters = {parameter.name: 0.1 for parameter in problem.parameters}
    return Physics(shape, grid, parameters, STEP, changes.pop("weights", {"residual": 1.0}), refinement)


def waves(points: int) -> Tensor:
    x = torch.arange(points, dtype=torch.float64) / points
    return (0.5 + torch.sin(2 * math.pi * x) + 0.3 * torch.cos(4 * math.pi * x))[None]


def burgers(points: int, finest: int = 2048) -> Tensor:
    """[1, t, points, 1] of a well resolved solution."""
    solved = solve_burgers(waves(finest), nu=0.1, frame_interval=STEP, frames=FRAMES)
    return solved[:, :, :: finest // points, None]


def score(of: Physics, trajectory: Tensor) -> Scored:
    return of.score(trajectory[:, 0], trajectory[:, None, 1:])


def test_the_residual_of_a_solution_vanishes_by_second_order():
    truth = burgers(POINTS)
    sizes = [score(physics("burgers1d", refinement=r), truth).totals.item() for r in (1, 2, 4, 8)]
    orders = [math.log2(coarse / fine) for coarse, fine in itertools.pairwise(sizes)]
    assert all(1.6 < order < 2.6 for order in orders), orders
    assert sizes[-1] < 1e-4


def test_the_residual_depends_on_no_grid():
    found = []
    for points in (64, 256):
        truth = burgers(points)
        x = torch.arange(points, dtype=torch.float64) / points
        wrong = truth.clone()
        wrong[:, 3] += 0.01 * torch.sin(6 * math.pi * x)[:, None]
        found.append(
            score(physics("burgers1d", points=points, refinement=512 // points), wrong).totals.item()
        )
    assert found[0] == pytest.approx(found[1], rel=0.02)
    assert found[0] > 2e-3


def test_advection_is_exact():
    truth = solve_advection(waves(POINTS), beta=0.1, frame_interval=STEP, frames=FRAMES)[..., None]
    assert score(physics("advection1d"), truth).totals.item() < 1e-12
    later = solve_advection(waves(POINTS), beta=0.12, frame_interval=STEP, frames=FRAMES)[..., None]
    assert score(physics("advection1d"), later).totals.item() > 1e-3


@pytest.mark.parametrize("variables", ["primitive", "conserved"])
def test_a_gas_converges(variables):
    x = torch.arange(512, dtype=torch.float64) / 512
    wave = torch.sin(2 * math.pi * x)
    initial = torch.stack([1 + 0.2 * wave, 0.1 * wave, 1 + 0.1 * wave], dim=-1)[None]
    solved = solve_compressible(
        initial, eta=0.1, zeta=0.1, boundary="periodic", frame_interval=STEP, frames=3
    )
    fields = to_conserved(solved) if variables == "conserved" else solved
    sizes = [
        score(
            physics("compressible1d", points=points, shape={"variables": variables}),
            fields[:, :, :: 512 // points],
        ).totals.item()
        for points in (64, 128, 512)
    ]
    assert sizes[0] > 2 * sizes[1] > 0
    assert sizes[2] < 1e-9


def test_a_gas_of_negative_density_is_no_candidate():
    gas = torch.ones(1, 2, 3, POINTS, 3)
    gas[:, 1, 1, 5, 0] = -1
    scored = physics("compressible1d").score(gas[:, 0, 0], gas)
    assert scored.totals[0, 0] < 1e-6
    assert scored.totals[0, 1] == torch.inf


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e12])
def test_what_blew_up_is_no_candidate_and_is_not_solved(value):
    truth = burgers(POINTS)
    blown = truth.clone()
    blown[:, 2, 3] = value
    both = torch.stack([truth[:, 1:], blown[:, 1:]], dim=1)
    totals = physics("burgers1d").score(truth[:, 0], both).totals
    assert totals[0, 0] < 0.1
    assert totals[0, 1] > 1e3  # infinite where a later frame follows


def test_the_steady_state_of_darcy():
    generator = torch.Generator().manual_seed(0)
    a = 1 + (torch.rand(1, 16, 16, generator=generator, dtype=torch.float64) > 0.5).double()
    u = solve_darcy_steady(a, forcing=0.1)
    first = torch.stack([a, torch.zeros_like(a)], dim=-1)
    candidates = torch.stack([torch.zeros_like(a), u], dim=-1).flatten(1, 2)[:, None, None]
    both = torch.cat([candidates, 1.1 * candidates], dim=1)  # given fields are known, whatever is decoded
    right, wrong = physics("darcy2d", points=16).score(first, both).totals[0].tolist()
    assert right < 1e-6  # what the solver left
    assert wrong == pytest.approx(0.1, rel=1e-6)  # linear in u, over the force


def test_values_at_a_wall():
    """Straight lines are extrapolated exactly: 0 where the scheme has a wall, a cell's length before the first point."""
    place = torch.arange(1, 17, dtype=torch.float64) / 16
    fields = torch.zeros(1, 1, 1, 16, 16, 2, dtype=torch.float64)
    fields[..., 1] = place[:, None] + torch.zeros(16)
    scored = physics("darcy2d", points=16, weights={"boundary": 1.0})
    value = scored.score(fields[:, 0, 0], fields.flatten(3, 4)).totals.item()
    far = 17 / 16
    assert value == pytest.approx(((0 + far**2 + 2 * place.square().mean().item()) / 4) ** 0.5)


def test_the_wall_is_where_the_solver_has_it():
    """Of a smooth coefficient the extrapolation's error vanishes by second order; half a cell away it would by first."""
    sizes = []
    for points in (32, 64):
        a = torch.ones(1, points, points, dtype=torch.float64)
        u = solve_darcy_steady(a, forcing=1.0)
        fields = torch.stack([a, u], dim=-1)
        scored = physics("darcy2d", points=points, weights={"boundary": 1.0})
        sizes.append(scored.score(fields, fields.flatten(1, 2)[:, None, None]).totals.item())
    assert sizes[0] > 3.5 * sizes[1]


@pytest.mark.parametrize(
    ("name", "factor", "offset", "expected"),
    [
        ("conservation", 1.0, 0.01, 0.01),
        ("energy", 1.02, 0.0, 0.02),
        ("maximum", 1.0, 0.05, 0.05),
        ("energy", 0.9, 0.0, 0.0),
        ("maximum", 0.9, 0.0, 0.0),
    ],
)
def test_violations_are_in_units_of_the_first_frame(name, factor, offset, expected):
    first = waves(POINTS)[..., None]
    unit = first.square().mean().sqrt().item()
    later = factor * first + offset * unit
    value = physics("burgers1d", weights={name: 1.0}).score(first, later[:, None, None].clone()).totals.item()
    assert value == pytest.approx(expected, abs=1e-12)


def test_a_gas_whose_entropy_falls():
    gas = torch.ones(1, 1, 2, POINTS, 3, dtype=torch.float64)
    gas[..., 0, :, 2] = 2.0  # from pressure 2 to 1: ln 2 less
    scored = physics("compressible1d", weights={"entropy": 1.0}).score(gas[:, 0, 0], gas)
    assert scored.costs[0, 0].sqrt().tolist() == pytest.approx([0.0, math.log(2)])


@pytest.mark.parametrize("variables", ["primitive", "conserved"])
def test_a_gas_at_rest_has_a_unit_of_velocity(variables):
    """In the first frame alone: its pressure sets it in motion."""
    x = torch.arange(POINTS, dtype=torch.float64) / POINTS
    still = torch.stack(
        [torch.ones_like(x), torch.zeros_like(x), 1 + 0.1 * torch.sin(2 * math.pi * x)], dim=-1
    )
    solved = solve_compressible(
        still[None], eta=0.1, zeta=0.1, boundary="periodic", frame_interval=STEP, frames=FRAMES
    )
    fields = to_conserved(solved) if variables == "conserved" else solved
    of = physics("compressible1d", shape={"variables": variables})
    scale = of.scale(fields[:, 0])[0, 0, 0, 0]
    assert scale[1] == pytest.approx(1e-3 * (1.5 if variables == "conserved" else 1.0) ** 0.5, rel=0.01)
    assert score(of, fields).totals.item() < 1e-9
    moving = fields.clone()
    moving[:, 0, :, 1] += 0.1
    assert of.scale(moving[:, 0])[0, 0, 0, 0, 1].item() == pytest.approx(0.1)


def test_a_solution_breaks_none_of_its_laws():
    truth = burgers(POINTS)
    weights = dict.fromkeys(("conservation", "energy", "maximum"), 1.0)
    assert score(physics("burgers1d", weights=weights), truth).totals.item() < 1e-9


def test_which_equation_has_which():
    assert scores_of(PROBLEMS["burgers1d"], "periodic") == ("residual", "conservation", "energy", "maximum")
    assert scores_of(PROBLEMS["compressible1d"], "outflow") == ("residual",)
    assert scores_of(PROBLEMS["compressible1d"], "periodic") == ("residual", "conservation", "entropy")
    assert scores_of(PROBLEMS["darcy2d"], "dirichlet") == ("residual", "boundary")
    assert {s for p in PROBLEMS.values() for b in p.boundaries for s in scores_of(p, b)} == set(
        PHYSICAL_SCORES
    )


def test_finer_grids_hold_the_coarse_points():
    coarse = waves(64)[..., None]
    torch.testing.assert_close(trigonometric(coarse, 4), waves(256)[..., None])
    torch.testing.assert_close(trigonometric(coarse, 4)[:, ::4], coarse)
    for periodic in (True, False):
        fine = linear(coarse, 4, periodic=periodic)
        torch.testing.assert_close(fine[:, ::4], coarse)
        assert fine.amin() >= coarse.amin()
    assert linear(coarse, 2, periodic=True)[0, -1] == (coarse[0, -1] + coarse[0, 0]) / 2
    assert linear(coarse, 2, periodic=False)[0, -1] == coarse[0, -1]


@pytest.mark.parametrize("name", [name for name, problem in PROBLEMS.items() if not problem.is_map])
def test_a_finer_grid_changes_the_residual_of_the_equations_that_the_configuration_names(name):
    wave = 1 + 0.1 * torch.sin(2 * torch.pi * (torch.arange(16) + 0.5) / 16)
    states = wave[None, :, None].repeat(1, 1, len(PROBLEMS[name].fields))
    advanced = importlib.import_module(f"ups.physics.defects.{name}").advanced
    given = {"time_step": 0.05, "parameters": {"nu": 0.05, "beta": 0.5, "eta": 0.01, "zeta": 0.01}}
    coarse, fine = (advanced(states, refinement=n, boundary="periodic", **given) for n in (1, 4))
    assert torch.equal(coarse, fine) == (name not in REFINED)
