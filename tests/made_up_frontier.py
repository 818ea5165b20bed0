"""A frontier without a measurement: two solvers' grids, a few rows and their seconds."""

from typing import Any

from ups.benchmarks.frontier import compared, front, verdict

BATCHES = (1, 64)
ROWS = (
    # name, kind, error, seconds at batch 1 and at 64, seconds invested
    ("linear", "surrogate", 0.3, 0.001, 0.0005, 100.0),
    ("operator", "surrogate", 0.01, 0.16, 0.002, 300.0),
    ("operator_single", "surrogate", 0.0125, 0.04, 0.0005, 300.0),
    ("guided", "surrogate", 0.009, 0.2, 0.1, 400.0),  # a row that has no label
    ("unet", "peer", 0.02, 0.05, 0.02, 250.0),
)
GRIDS = ((16, 0.16, 0.001, 0.001), (32, 0.04, 0.004, 0.004), (64, 0.01, 0.016, 0.016))


def made_up_frontier(*, generated: bool = True) -> dict[str, Any]:
    """As `ups.benchmarks.frontier.measure_frontier` returns it. generated: not the truth of a file."""
    records = [
        _row(name, kind, error, seconds, invested, members=1)
        for name, kind, error, *seconds, invested in ROWS
    ]
    for cells, error, *seconds in GRIDS:
        records.append(_row("finite volumes", "solver", error, seconds, 0.0, cells=cells, reading="smooth"))
    truth = _row("finite volumes", "solver", 1e-5, [0.06, 0.06], 0.0, cells=128, reading="linear")
    records.append(truth | {"own_grid": generated})
    comparisons = [row for batch in BATCHES for row in compared(records, batch)]
    return {
        "configuration": "made_up",
        "problem": "burgers1d",
        "dataset": "burgers1d nu=0.01",
        "data_version": "generated, 128 cells, seed 0",
        "metric": "trajectory_relative_l2",
        "n_trajectories": 64,
        "frames": 41,
        "resolution": [64],
        "truth_cells": 128,
        "generated": generated,
        "device": "cpu",
        "threads": 1,
        "repeats": 3,
        "compile": True,
        "batches": list(BATCHES),
        "stages": [{"stage": "download", "seconds": 20.0}, {"stage": "operator", "seconds": 280.0}],
        "rows": records,
        "fronts": {str(batch): front(records, batch) for batch in BATCHES},
        "comparisons": comparisons,
        "verdicts": [verdict(comparisons, batch) for batch in BATCHES],
    }


def _row(
    name: str, kind: str, error: float, seconds: list[float], invested: float, **about: Any
) -> dict[str, Any]:
    taken = {
        str(batch): {"median": one, "low": 0.9 * one, "high": 1.2 * one, "way": "eager"}
        for batch, one in zip(BATCHES, seconds, strict=True)
    }
    return {
        "model": name,
        "kind": kind,
        "error": error,
        "standard_error": 0.1 * error,
        "invested_seconds": invested,
        "seconds": taken,
        "own_grid": False,
        **about,
    }
