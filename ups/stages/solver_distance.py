"""How far the rows of a file are from what our own solvers make of their first frame, and how far they should be.

The distance of a row is its trajectory relative L2, |file - solver| / |file| over all frames, points and fields (of a
map: over the fields that are not given). It tells another equation, another parameter, a permuted axis or a
damaged row from rounding, which no check of the layout can.

Solvers: Burgers in PDEBench's scheme; advection by PDEBench's upwind scheme and by the exact shift, of which the
closer one is told; Darcy's steady state, while the stored one is that at t = 1.75 of a relaxation; compressible flow
in a scheme of PDEBench's kind, for our own files only, because no genuine rows are known to hold it against.

Source of the expected distances: measured on rows of PDEBench's own generator. A mean over few rows scatters: one row
with a kink in its first frame outweighs a dozen without.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ups.data.pdebench import PDEBenchFile, read_trajectories
from ups.errors import UpsError
from ups.physics.advection import solve_advection
from ups.physics.burgers import solve_burgers
from ups.physics.compressible import solve_compressible
from ups.physics.darcy import solve_darcy_steady
from ups.physics.upwind_advection import CFL, solve_upwind_advection
from ups.problems import ProblemName
from ups.problems.ideal_gas import GAMMA

ROWS = 4
"""Rows that are solved: seconds, and enough to tell another equation from rounding."""

_MOST_STEPS = 200_000
_COURANT = 0.25


@dataclass(frozen=True)
class Expected:
    """What PDEBench's own rows have at a parameter."""

    parameter: float
    over_rows: int
    mean: float
    median: float | None = None


_EXPECTED: dict[ProblemName, tuple[Expected, ...]] = {
    "burgers1d": (Expected(0.001, 4, 2e-4), Expected(0.01, 4, 2e-4)),
    "advection1d": (Expected(0.1, 4, 6e-6), Expected(1.0, 4, 6e-4)),
    "darcy2d": (
        Expected(0.01, 64, 0.376, 0.198),
        Expected(0.1, 64, 0.163, 0.023),
        Expected(1.0, 64, 3.3e-2, 2.2e-3),
        Expected(10.0, 64, 1.9e-3, 1.9e-4),
        Expected(100.0, 64, 2.6e-3, 1.2e-4),
    ),
    "compressible1d": (),
}

Fields = NDArray[np.float32]
Solve = Callable[[Fields, PDEBenchFile], torch.Tensor]
"""Fields [n, t, *grid, C] as read to what the solver makes of their first frame, same shape."""


def solver_distance(described: PDEBenchFile, *, rows: NDArray[np.int64], genuine: bool) -> dict[str, Any]:
    """Distances of some rows, as a JSON record; of a file that cannot be compared, the reason.

    Args:
        described: the file.
        rows: numbers of good rows [n]; the first few are solved.
        genuine: the file is PDEBench's, not one of ours.
    """
    problem = described.problem
    rows = rows[:ROWS]
    if len(rows) == 0:
        return {"skipped": "no row can be used"}
    if genuine and problem.name == "compressible1d":
        return {"skipped": "our scheme was never held against genuine rows of this problem"}
    read = read_trajectories(
        described.path,
        rows,
        problem=problem.name,
        parameters=described.parameters,
        boundary=described.boundary,
    )
    steps = _steps(read.fields, described)
    if steps > _MOST_STEPS:
        return {"skipped": f"it would take our solver {steps:.1g} steps"}
    torch.set_num_threads(1)  # short operations: threads would wait for one another
    forecast = [index for index, field in enumerate(problem.fields) if not field.given]
    truth = read.fields[..., forecast].astype(np.float64).reshape(len(rows), -1)
    size = np.linalg.norm(truth, axis=1)
    if not size.all():
        return {"skipped": "a row is zero"}
    found: dict[str, NDArray[np.float64]] = {}
    try:
        for name, solve in _SOLVERS[problem.name].items():
            solved = solve(read.fields, described).numpy()[..., forecast].astype(np.float64)
            found[name] = np.linalg.norm(solved.reshape(len(rows), -1) - truth, axis=1) / size
    except UpsError as error:
        return {"skipped": f"our solver failed: {error}"}
    solver, distance = min(found.items(), key=lambda item: float(item[1].mean()))
    return {
        "solver": solver,
        "metric": "trajectory relative L2, all frames",
        "rows": rows.tolist(),
        "mean": float(distance.mean()),
        "median": float(np.median(distance)),
        "largest": float(distance.max()),
        "expected": _expected(described) if genuine else "rounding, if this solver made them on this grid",
    }


def _expected(described: PDEBenchFile) -> dict[str, Any] | str:
    (parameter,) = described.parameters.values()
    for expected in _EXPECTED[described.problem.name]:
        if np.isclose(parameter, expected.parameter, rtol=1e-6):
            return asdict(expected)
    return f"was measured at {', '.join(f'{each.parameter:g}' for each in _EXPECTED[described.problem.name])} only"


def _steps(fields: Fields, described: PDEBenchFile) -> float:
    """About how many steps of the explicit solvers a file takes: absurd fields would take for ever."""
    if described.problem.is_map:
        return 0.0
    cells, duration = described.grid[0], float(described.times[-1] - described.times[0])
    if described.problem.name == "advection1d":
        return duration * described.parameters["beta"] * cells / CFL
    speed = np.abs(fields[:, 0, ..., 0]).max() if described.problem.name == "burgers1d" else _sound(fields)
    lower, upper = described.problem.domain[0]
    viscosity = 0.0 if described.problem.name == "burgers1d" else sum(described.parameters.values())
    width = (upper - lower) / cells
    return float(duration / _COURANT * (speed / width + 4.0 * viscosity / width**2))


def _sound(fields: Fields) -> float:
    density, velocity, pressure = np.moveaxis(fields[:, 0].astype(np.float64), -1, 0)
    return float((np.abs(velocity) + np.sqrt(GAMMA * pressure / density)).max())


def _frames(described: PDEBenchFile) -> dict[str, Any]:
    interval = float(described.times[-1] - described.times[0]) / (described.frames - 1)
    return {"frame_interval": interval, "frames": described.frames}


def _burgers(fields: Fields, described: PDEBenchFile) -> torch.Tensor:
    initial = torch.from_numpy(fields[:, 0, :, 0])
    return solve_burgers(initial, **described.parameters, **_frames(described))[..., None]


def _upwind_advection(fields: Fields, described: PDEBenchFile) -> torch.Tensor:
    initial = torch.from_numpy(fields[:, 0, :, 0]).double()
    return solve_upwind_advection(initial, **described.parameters, **_frames(described))[..., None]


def _shifted_advection(fields: Fields, described: PDEBenchFile) -> torch.Tensor:
    initial = torch.from_numpy(fields[:, 0, :, 0])
    return solve_advection(initial, **described.parameters, **_frames(described))[..., None]


def _darcy(fields: Fields, described: PDEBenchFile) -> torch.Tensor:
    coefficient = torch.from_numpy(fields[:, 1, ..., 0])
    solved = torch.from_numpy(fields.copy())
    solved[:, 1, ..., 1] = solve_darcy_steady(coefficient, forcing=described.parameters["beta"])
    return solved


def _compressible(fields: Fields, described: PDEBenchFile) -> torch.Tensor:
    initial = torch.from_numpy(fields[:, 0])
    assert described.boundary != "dirichlet"  # the problem has no such boundary
    return solve_compressible(
        initial, **described.parameters, boundary=described.boundary, **_frames(described)
    )


_SOLVERS: dict[ProblemName, dict[str, Solve]] = {
    "burgers1d": {"PDEBench's scheme": _burgers},
    "advection1d": {"PDEBench's upwind scheme": _upwind_advection, "exact shift": _shifted_advection},
    "darcy2d": {"steady state": _darcy},
    "compressible1d": {"own scheme": _compressible},
}
