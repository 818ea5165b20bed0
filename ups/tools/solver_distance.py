"""How far the rows of a file are from what our own solvers make of their first frame, and how far they should be.

The distance of a row is its trajectory relative L2, |file - solver| / |file| over all frames, points and fields (of a
map: over the fields that are not given). It tells another equation, another parameter, a permuted axis or a
damaged row from rounding, which no check of the layout can.

The solvers are each equation's `COMPARISON` (see `ups.physics.generators`), the expected distances are declared with it.
"""

from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ups.data.pdebench import PDEBenchFile, read_trajectories
from ups.errors import UpsError
from ups.physics.generators import GivenRows, comparison_of

ROWS = 4
"""Rows that are solved: seconds, and enough to tell another equation from rounding."""

_MOST_STEPS = 200_000


def solver_distance(described: PDEBenchFile, *, rows: NDArray[np.int64], genuine: bool) -> dict[str, Any]:
    """Distances of some rows, as a JSON record; of a file that cannot be compared, the reason.

    Args:
        described: the file.
        rows: numbers of good rows [n]; the first few are solved.
        genuine: the file is PDEBench's, not one of ours.
    """
    problem = described.problem
    comparison = comparison_of(problem.name)
    rows = rows[:ROWS]
    if len(rows) == 0:
        return {"skipped": "no row can be used"}
    if genuine and not comparison.genuine:
        return {"skipped": "our scheme was never held against genuine rows of this problem"}
    read = read_trajectories(
        described.path,
        rows,
        problem=problem.name,
        parameters=described.parameters,
        boundary=described.boundary,
    )
    lower, upper = problem.domain[0]
    duration = 0.0 if problem.is_map else float(described.times[-1] - described.times[0])
    given = GivenRows(read.fields, described.parameters, described.boundary, upper - lower, duration)
    steps = comparison.steps(given)
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
        for name, solve in comparison.solvers.items():
            solved = solve(given).numpy()[..., forecast].astype(np.float64)
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
    measured = described.problem.distances
    for expected in measured:
        if np.isclose(parameter, expected.parameter, rtol=1e-6):
            return asdict(expected)
    return f"was measured at {', '.join(f'{each.parameter:g}' for each in measured)} only"
