"""Solvers on coarser grids: what they are given, how they are read, and that finer grids are as much better as the schemes are."""

import numpy as np
import pytest
import torch
from torch import Tensor

from ups.benchmarks.coarse_solvers import SOLVERS, CoarseSolver, Given, coarser_grids, solvers_of
from ups.errors import ConfigurationError
from ups.losses.relative import relative_l2_per_field
from ups.physics.burgers import solve_burgers
from ups.physics.compressible import solve_compressible
from ups.physics.compressible_samples import compressible_initial_states
from ups.physics.darcy import solve_darcy_steady
from ups.problems import PROBLEMS, Boundary
from ups.problems.ideal_gas import to_conserved

FINE, STRIDE = 256, 4


def smooth_waves(cells: int) -> Tensor:
    """Averages over cells of a few waves, [3, cells]."""
    edge = np.arange(cells + 1) / cells
    rows = []
    for wave, phase, mean in ((1, 0.3, 0.2), (2, 1.1, -0.1), (3, 2.0, 0.0)):
        integral = mean * edge - np.cos(2 * np.pi * wave * edge + phase) / (2 * np.pi * wave)
        rows.append(cells * np.diff(integral))
    return torch.from_numpy(np.array(rows))


def errors(
    problem: str, name: str, parameters: dict, boundary: Boundary, first: Tensor, truth: Tensor, grids
):
    """Mean trajectory relative L2 by grid and reading; truth [n, t, *fine, C] with the first frame."""
    interval = 1.0 if PROBLEMS[problem].is_map else 0.05
    given = Given(PROBLEMS[problem], parameters, boundary, interval, truth.shape[1])
    every = (slice(None), slice(1, None), *(slice(None, None, STRIDE),) * (truth.ndim - 3))
    scored = [place for place, field in enumerate(PROBLEMS[problem].fields) if not field.given]
    found: dict[str, list[float]] = {"linear": [], "smooth": []}
    for cells in grids:
        solver = CoarseSolver(SOLVERS[problem][name], given, first.shape[1], STRIDE, cells, "cpu")
        solved = solver.solved(first)
        for reading, list_of in found.items():
            forecast = solver.read(solved, reading)
            assert forecast.shape == truth[every].shape
            error = relative_l2_per_field(forecast[..., scored], truth[every][..., scored])
            list_of.append(error.mean().item())
    return found


def test_what_waves_lose_in_averages_is_no_error_of_a_solver():
    """Advected exactly from averages over 16 cells and read on 256: exact, though cells and points are elsewhere."""
    first = smooth_waves(FINE).float()[..., None]
    wave = 2j * np.pi * torch.arange(FINE // 2 + 1)
    moved = [
        torch.fft.irfft(torch.fft.rfft(first[..., 0].double()) * torch.exp(-wave * 0.05 * frame), FINE)
        for frame in range(4)
    ]
    truth = torch.stack(moved, dim=1).float()[..., None]
    found = errors("advection1d", "exact shift", {"beta": 1.0}, "periodic", first, truth, [16])
    assert found["smooth"][0] < 1e-5
    assert found["linear"][0] > 1e-2


def test_errors_of_burgers_fall_as_its_scheme_is_accurate():
    """Second order where nothing is steep; the linear reading too."""
    first = smooth_waves(FINE).float()
    truth = solve_burgers(first, nu=0.1, frame_interval=0.05, frames=5)[..., None]
    found = errors(
        "burgers1d", "finite volumes", {"nu": 0.1}, "periodic", first[..., None], truth, [16, 32, 64]
    )
    for list_of in found.values():
        coarse, middle, fine = list_of
        assert 3 < coarse / middle < 6
        assert 3 < middle / fine < 6
    assert max(found["smooth"]) < 0.1


@pytest.mark.parametrize("boundary", ["periodic", "outflow"])
def test_errors_of_a_gas_fall_as_its_scheme_is_accurate(boundary):
    # Rows without jumps.
    rows = [0, 1] if boundary == "periodic" else [2, 3]
    initial = compressible_initial_states(rows, seed=1, resolution=128, boundary="periodic")
    if boundary == "outflow":  # at rest and constant at both ends
        bump = np.exp(-(((np.arange(128) + 0.5) / 128 - 0.5) ** 2) / 0.01)[:, None]
        initial = np.array([1.0, 0.0, 1.0]) + initial[:, 64:65] * bump * 0.2
    first = torch.from_numpy(initial).float()
    times = {"frame_interval": 0.05, "frames": 4}
    truth = solve_compressible(first, eta=0.01, zeta=0.01, boundary=boundary, **times)
    parameters = {"eta": 0.01, "zeta": 0.01}
    found = errors("compressible1d", "finite volumes", parameters, boundary, first, truth, [16, 32])
    assert found["smooth"][0] / found["smooth"][1] > 3
    assert found["smooth"][1] < 0.02


def test_a_gas_is_averaged_in_what_it_conserves():
    first = torch.from_numpy(
        compressible_initial_states([0], seed=0, resolution=64, boundary="periodic")
    ).float()
    seen = []

    def solve(initial: Tensor, given: Given) -> Tensor:
        seen.append(to_conserved(initial))
        return initial[:, None].expand(-1, given.frames, -1, -1)

    given = Given(PROBLEMS["compressible1d"], {"eta": 0.1, "zeta": 0.1}, "periodic", 0.05, 2)
    CoarseSolver(solve, given, 64, 1, 16, "cpu").solved(first)
    expected = to_conserved(first).unflatten(1, (16, 4)).mean(dim=2)
    torch.testing.assert_close(seen[0], expected, rtol=1e-5, atol=1e-6)


def test_walls_of_darcy_flow_are_where_the_truth_has_them():
    """Second order with a smooth coefficient; on a coarser grid of the unit square it would be first order."""
    x = (torch.arange(128) + 0.5) / 128 - 0.5
    coefficient = (1 + torch.exp(-(x[:, None] ** 2 + x**2) / 0.03))[None]
    solution = solve_darcy_steady(coefficient, forcing=1.0)
    first = torch.stack([coefficient, torch.zeros_like(coefficient)], dim=-1)
    truth = torch.stack([first, torch.stack([coefficient, solution], dim=-1)], dim=1)
    found = errors("darcy2d", "steady state", {"beta": 1.0}, "dirichlet", first, truth, [8, 16])
    coarse, fine = found["smooth"]
    assert coarse / fine > 3
    assert fine < 0.01


def test_grids_are_those_whose_cells_are_unions_of_the_truths():
    assert coarser_grids(512, None) == [8, 16, 32, 64, 128, 256]
    assert coarser_grids(1024, None) == [16, 32, 64, 128, 256, 512]
    assert coarser_grids(96, None) == [12, 24, 48]
    assert coarser_grids(96, (32, 12, 32)) == [12, 32]
    for cells in (100, 512, 4):
        with pytest.raises(
            ConfigurationError, match=rf"--cells: {cells} cells are no coarser grid.*\n?.*8, 16, 32"
        ):
            coarser_grids(512, (cells,))


@pytest.mark.parametrize(
    ("points", "fix"), [(129, "choose some of 43"), (12, "there is none: use data on a finer grid")]
)
def test_a_truth_without_halves_is_told(points, fix):
    with pytest.raises(ConfigurationError, match=rf"--cells: no half of the truth's {points} cells") as told:
        coarser_grids(points, None)
    assert fix in str(told.value)


def test_an_equation_without_a_solver_is_told():
    problem = PROBLEMS["burgers1d"]
    unknown = type(problem)(**{**vars(problem), "name": "heat1d"})
    with pytest.raises(ConfigurationError, match="no solver of heat1d"):
        solvers_of(unknown)
    assert set(SOLVERS) == set(PROBLEMS)
