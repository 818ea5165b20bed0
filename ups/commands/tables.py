"""Tables on the terminal."""

from typing import Any

from rich.console import Console
from rich.table import Table

from ups.pipeline.plan import PlannedStage

METRICS = {
    "trajectory_relative_l2": "trajectory rel. L2",
    "pdebench_nrmse": "PDEBench nRMSE",
    "final_relative_l2": "final rel. L2",
    "mass_drift": "mass drift",
    "crps": "CRPS",
    "coverage_90": "coverage 90 %",
    "seconds_per_trajectory": "s / trajectory",
}


def show(table: Table) -> None:
    Console().print(table)


def plan_table(plan: list[PlannedStage]) -> Table:
    """Stage, verdict, reason, digest, bytes."""
    table = Table("stage", "verdict", "why", "digest", "MB", box=None, pad_edge=False)
    for stage in plan:
        colour = "green" if stage.verdict == "HIT" else "yellow"
        table.add_row(
            stage.name,
            f"[{colour}]{stage.verdict}",
            stage.reason,
            stage.digest[:12],
            f"{stage.predicted_bytes / 1e6:.1f}",
        )
    return table


def result_table(records: list[dict[str, Any]]) -> Table:
    """One row per model, one column per metric; the conventions in the title."""
    first = records[0]
    title = (
        f"{first['dataset']}, {first['split']} split: {first['n_trajectories']} trajectories, "
        f"{first['frames'] - 1} steps, {first['resolution'][0]} points, seed {first['seed']}; "
        "decoded fields, first frame not counted"
    )
    table = Table("model", *METRICS.values(), title=title, title_justify="left", box=None, pad_edge=False)
    values = {(record["model"], record["metric"]): record["value"] for record in records}
    for model in dict.fromkeys(record["model"] for record in records):
        cells = [values.get((model, metric)) for metric in METRICS]
        table.add_row(model, *("" if cell is None else f"{cell:.3g}" for cell in cells))
    return table
