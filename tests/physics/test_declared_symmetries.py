"""What a problem's declaration says of its solutions holds for the solvers, and for genuine rows.

A symmetry turns a solution into another one: the solution from a moved first state is the moved solution. States
are moved as the models move them (`ups.models.reference_frame`), which shift in float32: 1e-6 of the field. Of compressible
flow there are no genuine rows: its symmetries are tested on the generator alone.
"""

from dataclasses import replace
from typing import Any

import h5py
import pytest
import torch
from torch import Tensor

from ups.models.reference_frame import ReferenceFrame
from ups.models.shape import ProblemShape
from ups.physics.advection import solve_advection
from ups.physics.burgers import solve_burgers
from ups.physics.compressible import solve_compressible
from ups.physics.compressible_samples import compressible_initial_states
from ups.physics.darcy import solve_darcy_steady
from ups.physics.darcy_samples import darcy_coefficients
from ups.physics.initial_conditions import sinusoidal_initial_conditions
from ups.physics.upwind_advection import solve_upwind_advection
from ups.problems import PROBLEMS, Symmetry

CELLS, NU, INTERVAL, FRAMES = 1024, 0.01, 0.25, 3
ELAPSED = INTERVAL * torch.arange(FRAMES)
BURGERS = ProblemShape("burgers1d", (CELLS,), (1,), (0,), "periodic")
ADVECTION = replace(BURGERS, equation="advection1d")
DARCY = ProblemShape("darcy2d", (64, 64), (1, 1), (1,), "dirichlet")


def flow(boundary: Any, cells: int = 256) -> ProblemShape:
    return ProblemShape("compressible1d", (cells,), (1,), (0, 1, 2), boundary)


def distance(found: Tensor, expected: Tensor) -> float:
    """Relative L2 over everything, largest over rows and fields."""
    error = (found.double() - expected.double()).flatten(1, -2).norm(dim=1)
    return (error / expected.double().flatten(1, -2).norm(dim=1)).max().item()


def burgers(first: Tensor, *, nu: float = NU, interval: float = INTERVAL) -> Tensor:
    """[n, x, 1] to [n, t, x, 1]."""
    solved = solve_burgers(first[..., 0].double(), nu=nu, frame_interval=interval, frames=FRAMES)
    return solved.unsqueeze(-1)


def sines(shape: ProblemShape, rows: int = 2) -> Tensor:
    states = sinusoidal_initial_conditions(range(rows), seed=4, resolution=shape.grid[0])
    return torch.from_numpy(states).unsqueeze(-1)


def moving(shape: ProblemShape, first: Tensor, *symmetries: Symmetry) -> ReferenceFrame:
    """Some frames that are not at rest."""
    frame = ReferenceFrame.random(shape, first.float(), symmetries, torch.Generator().manual_seed(2))
    if "reflection" in symmetries:
        frame = replace(frame, reversed=torch.ones_like(frame.reversed))
    return frame


def magnified(shape: ProblemShape, first: Tensor, *factors: float) -> ReferenceFrame:
    """The frame whose fields are those of first states over some factors, one for each field."""
    scale = torch.tensor(factors, dtype=torch.float64).expand(len(first), -1)
    return replace(ReferenceFrame.at_rest(shape, first), scale=scale)


def moved_first(frame: ReferenceFrame, first: Tensor) -> Tensor:
    return frame.enter(first[:, None], torch.zeros(1))[:, 0]


def test_every_declared_symmetry_is_tested_here():
    tested = {
        "burgers1d": {"shift", "reflection", "galilean", "scaling"},
        "advection1d": {"shift", "offset", "scaling"},
        "darcy2d": {"square", "scaling"},
        "compressible1d": {"shift", "reflection", "galilean", "scaling"},
    }
    for name, problem in PROBLEMS.items():
        assert set(problem.has(problem.boundaries[0])) == tested[name], name


# Steps adapt to the speed of the flow, and a boosted front lies elsewhere in its cells: the scheme's own error.
@pytest.mark.parametrize(
    ("symmetry", "tolerance"), [("shift", 2e-6), ("reflection", 2e-6), ("galilean", 2e-4)]
)
def test_burgers(symmetry, tolerance):
    first = sines(BURGERS)
    plain, frame = burgers(first), moving(BURGERS, first, symmetry)
    expected = frame.enter(plain, ELAPSED)
    assert distance(burgers(moved_first(frame, first)), expected) < tolerance
    assert distance(plain, expected) > 0.1


def test_burgers_of_another_amplitude_has_another_time_and_viscosity():
    """(u, t, nu) to (u / a, a t, nu / a); here a is one for all rows."""
    first, factor = sines(BURGERS), 1.7
    frame = magnified(BURGERS, first, factor)
    expected = frame.enter(burgers(first), ELAPSED)
    scaled = moved_first(frame, first)
    assert distance(burgers(scaled, nu=NU / factor, interval=factor * INTERVAL), expected) < 1e-9
    assert distance(burgers(scaled, interval=factor * INTERVAL), expected) > 1e-3
    assert distance(burgers(scaled, nu=NU / factor), expected) > 1e-2


@pytest.mark.parametrize("symmetry", ["shift", "offset", "scaling"])
def test_advection(symmetry):
    first = sines(ADVECTION)

    def solve(states: Tensor) -> Tensor:
        solved = solve_advection(states[..., 0].double(), beta=0.4, frame_interval=INTERVAL, frames=FRAMES)
        return solved.unsqueeze(-1)

    plain, frame = solve(first), moving(ADVECTION, first, symmetry)
    expected = frame.enter(plain, ELAPSED)
    assert distance(solve(moved_first(frame, first)), expected) < 2e-6
    assert distance(plain, expected) > 0.1


@pytest.mark.parametrize(
    ("boundary", "symmetry", "tolerance"),
    [
        ("periodic", "shift", 1e-5),
        ("periodic", "reflection", 1e-5),
        ("periodic", "galilean", 5e-3),
        ("periodic", "scaling", 1e-9),
        ("outflow", "reflection", 1e-5),
        ("outflow", "scaling", 1e-9),
    ],
)
def test_compressible_flow(boundary, symmetry, tolerance):
    """The velocity changes by a constant, or its sign, and density and pressure go with it; or these two by one factor."""
    shape = flow(boundary)
    states = compressible_initial_states(range(2), seed=4, resolution=256, boundary=boundary)
    first, interval = torch.from_numpy(states), 0.05

    def solve(states: Tensor) -> Tensor:
        return solve_compressible(
            states.double(), eta=0.01, zeta=0.01, boundary=boundary, frame_interval=interval, frames=FRAMES
        )

    elapsed = interval * torch.arange(FRAMES)
    plain, frame = solve(first), moving(shape, first, symmetry)
    expected = frame.enter(plain, elapsed)
    found = solve(moved_first(frame, first))
    # Relative to the velocity's variation: a boost adds a constant to it.
    for channel in range(3):
        unit = (
            (plain[..., channel] - plain[..., channel].mean(dim=(1, 2), keepdim=True)).flatten(1).norm(dim=1)
        )
        error = (found - expected)[..., channel].flatten(1).norm(dim=1) / unit
        assert error.max() < tolerance, channel
    assert distance(plain, expected) > 0.05


def eight(shape: ProblemShape) -> ReferenceFrame:
    """All positions of a square."""
    number = torch.arange(8)
    at_rest = ReferenceFrame.at_rest(shape, torch.zeros(8, *shape.grid, 2))
    reversed_ = torch.stack([number & 1, number & 2], dim=1) > 0
    return replace(at_rest, reversed=reversed_, exchanged=number >= 4)


def test_darcy_flow_on_a_square_in_all_eight_positions():
    coefficient = torch.from_numpy(darcy_coefficients([3], seed=1, resolution=64)).double()
    solution = solve_darcy_steady(coefficient, forcing=1.0)
    fields = torch.stack([coefficient, solution], dim=-1)[:, None].repeat(8, 1, 1, 1, 1)
    turned = eight(DARCY).enter(fields, torch.zeros(1))[:, 0]
    assert len({tuple(row[..., 0].flatten().tolist()) for row in turned}) == 8
    found = solve_darcy_steady(turned[..., 0], forcing=1.0)
    assert distance(found.unsqueeze(-1), turned[..., 1:]) < 1e-6


@pytest.mark.parametrize("beta", [0.01, 100.0])
def test_darcy_flow_is_proportional_to_its_force(beta):
    coefficient = torch.from_numpy(darcy_coefficients([3], seed=1, resolution=64)).double()
    plain, forced = (solve_darcy_steady(coefficient, forcing=forcing) for forcing in (1.0, beta))
    shape = replace(DARCY, exact=("scaling",))
    fields = torch.stack([coefficient, forced], dim=-1)[:, None]
    inside = ReferenceFrame.of(shape, fields[:, 0], {"beta": beta}).enter(fields, torch.zeros(1))
    assert distance(inside[:, 0, ..., 1:], plain.unsqueeze(-1)) < 1e-6


def test_means_that_are_declared_constant_are_so():
    first = sines(BURGERS)
    assert (burgers(first).mean(dim=(2, 3)) - first.mean(dim=(1, 2))[:, None]).abs().max() < 1e-12


# --- genuine rows ---------------------------------------------------------------------------------


def genuine_burgers(directory: Any, nu: float) -> Tensor:
    """Every 25th frame of two rows, [2, t, x, 1]."""
    with h5py.File(directory / f"1D_Burgers_Sols_Nu{nu}.rows4.hdf5", "r") as file:
        return torch.from_numpy(file["tensor"][:2, : 25 * FRAMES : 25]).double().unsqueeze(-1)


@pytest.mark.parametrize("symmetry", ["shift", "reflection", "galilean"])
def test_genuine_burgers_rows_are_moved_to_solutions(genuine_data, symmetry):
    """4e-4 is twice what our solution of the rows as they are differs by."""
    rows = genuine_burgers(genuine_data, NU)
    frame = moving(BURGERS, rows[:, 0], symmetry)
    found = burgers(moved_first(frame, rows[:, 0]))
    assert distance(found, frame.enter(rows, ELAPSED)) < 4e-4


def test_genuine_burgers_rows_of_another_amplitude_have_another_time_and_viscosity(genuine_data):
    rows, factor = genuine_burgers(genuine_data, NU), 1.7
    frame = magnified(BURGERS, rows[:, 0], factor)
    found = burgers(moved_first(frame, rows[:, 0]), nu=NU / factor, interval=factor * INTERVAL)
    assert distance(found, frame.enter(rows, ELAPSED)) < 4e-4
    assert distance(found, rows) > 0.1


@pytest.mark.parametrize("symmetry", ["shift", "offset", "scaling"])
def test_genuine_advection_rows_are_moved_to_solutions(genuine_data, symmetry):
    """By the scheme that made them, whose steps end at each of the file's frames."""
    with h5py.File(genuine_data / "1D_Advection_Sols_beta0.1.rows4.hdf5", "r") as file:
        rows = torch.from_numpy(file["tensor"][:, : 25 * FRAMES]).double().unsqueeze(-1)
    elapsed = 0.01 * torch.arange(rows.shape[1])
    frame = moving(ADVECTION, rows[:, 0], symmetry)
    expected = frame.enter(rows, elapsed)
    first = moved_first(frame, rows[:, 0])[..., 0]
    found = solve_upwind_advection(first.double(), beta=0.1, frame_interval=0.01, frames=rows.shape[1])
    assert distance(found.unsqueeze(-1), expected) < 2e-5
    assert distance(rows, expected) > 0.1


@pytest.mark.parametrize("nu", [0.001, 0.01])
def test_genuine_burgers_rows_keep_their_mean(genuine_data, nu):
    """To the drift of 50,000 steps in float32."""
    means = genuine_burgers(genuine_data, nu).mean(dim=(2, 3))
    assert (means - means[:, :1]).abs().max() < 1e-4


def genuine_darcy(directory: Any) -> tuple[Tensor, float]:
    """One row, [1, 1, x, y, 2], and its force."""
    with h5py.File(directory / "2D_DarcyFlow_beta1.0_Train.rows2.hdf5", "r") as file:
        fields = torch.stack([torch.from_numpy(file[key][:1]).squeeze(1) for key in ("nu", "tensor")], dim=-1)
        return fields[:, None], float(file.attrs["beta"])


def test_genuine_darcy_rows_are_turned_to_solutions(genuine_data):
    """Turned before they are strided: the points that are kept of a turned field are other points."""
    row, beta = genuine_darcy(genuine_data)
    turned = eight(replace(DARCY, grid=(128, 128))).enter(row.repeat(8, 1, 1, 1, 1), torch.zeros(1))[:, 0]
    found = solve_darcy_steady(turned[..., 0], forcing=beta)
    assert distance(found.unsqueeze(-1), turned[..., 1:]) < 2e-3
    strided = turned[:, ::2, ::2]
    assert not torch.equal(strided[1], strided[0].flip(0)), "turned after, points would lie half a cell aside"


def test_genuine_darcy_rows_are_solutions_of_another_force_in_proportion(genuine_data):
    row, beta = genuine_darcy(genuine_data)
    shape = replace(DARCY, grid=(128, 128), exact=("scaling",))
    other = ReferenceFrame.of(shape, row[:, 0], {"beta": 10.0}).leave(row, torch.zeros(1))[:, 0]
    found = solve_darcy_steady(row[:, 0, ..., 0], forcing=10.0 * beta)
    assert distance(found.unsqueeze(-1), other[..., 1:]) < 2e-3
