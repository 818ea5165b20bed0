"""Tables on the terminal."""

import os
import sys
from collections.abc import Iterator
from typing import Any, Literal

from rich.cells import cell_len
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

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

_WIDTH_OF_FILES = 140  # where there is no terminal whose width could be asked
_NARROWEST_TEXT = 24
_GAP = 2


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # rich itself would end the process with 1, which says that a stage failed


def console() -> Console:
    """Standard output: as wide as the terminal (or $COLUMNS), or wide enough for our tables in a file."""
    fixed = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return _Console(width=_WIDTH_OF_FILES if fixed else None, highlight=False)


def show(table: Table) -> None:
    """Print a table; columns that do not fit follow below, beside a copy of the first column."""
    terminal = console()
    for part in _parts(table, terminal.width):
        terminal.print(part)


def plan_table(plan: list[PlannedStage]) -> Table:
    """Stage, verdict, reason, digest, bytes."""
    table = _table(_narrow("stage"), _narrow("verdict"), "why", _narrow("digest"), _narrow("MB", "right"))
    for stage in plan:
        table.add_row(
            stage.name,
            Text(stage.verdict, style="green" if stage.verdict == "HIT" else "yellow"),
            Text(stage.reason),
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
    table = _table(
        _narrow("model"), *(_narrow(name, "right") for name in METRICS.values()), title=Text(title)
    )
    values = {(record["model"], record["metric"]): record["value"] for record in records}
    for model in dict.fromkeys(record["model"] for record in records):
        cells = [values.get((model, metric)) for metric in METRICS]
        table.add_row(model, *("" if cell is None else f"{cell:.3g}" for cell in cells))
    return table


def _table(*columns: Column | str, title: Text | None = None) -> Table:
    return Table(
        *columns, title=title, title_justify="left", box=None, pad_edge=False, padding=(0, _GAP, 0, 0)
    )


def _narrow(header: str, justify: Literal["left", "right"] = "left") -> Column:
    """A column whose cells are never broken."""
    return Column(header, justify=justify, no_wrap=True)


def _parts(table: Table, width: int) -> Iterator[Table]:
    """The table, if its columns fit side by side; else parts of it that do, each with the first column."""
    columns = table.columns
    if sum(_natural_width(column) + _GAP for column in columns) - _GAP <= width:
        yield table
        return
    first, *others = [(column, _least_width(column)) for column in columns]
    title = table.title
    while others:
        chosen = [first, others.pop(0)]
        while others and sum(least + _GAP for _, least in (*chosen, others[0])) - _GAP <= width:
            chosen.append(others.pop(0))
        spare = max(0, width + _GAP - sum(least + _GAP for _, least in chosen))
        part = _table(title=title if isinstance(title, Text) else None)
        for column, least in chosen:
            # Fixed, so that headers break between words and cells do not break at all.
            fixed = least if column.no_wrap else least + spare
            part.add_column(column.header, justify=column.justify, width=fixed, overflow="fold")
        for row in zip(*(column.cells for column, _ in chosen), strict=True):
            part.add_row(*row)
        yield part
        title = None


def _natural_width(column: Column) -> int:
    return max(cell_len(str(cell)) for cell in (column.header, *column.cells))


def _least_width(column: Column) -> int:
    if not column.no_wrap:
        return min(_NARROWEST_TEXT, _natural_width(column))
    return max(cell_len(str(part)) for part in (*str(column.header).split(), *column.cells))
