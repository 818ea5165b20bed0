"""Tables on the terminal."""

import os
import sys
from collections.abc import Iterator
from typing import Any, Literal

from rich.cells import cell_len
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from ups.metric_labels import HEADINGS, frames_counted
from ups.pipeline.plan import PlannedStage
from ups.pipeline.readiness.checks import Finding

_WIDTH_OF_FILES = 200  # where there is no terminal whose width could be asked
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


def print_progress(line: str) -> None:
    """A line of progress goes to standard error: standard output is for what was asked for."""
    print(line, file=sys.stderr)


def plan_table(plan: list[PlannedStage]) -> Table:
    """Stage, verdict, reason, digest, bytes."""
    table = _table(_narrow("stage"), _narrow("verdict"), "why", _narrow("digest"), _narrow("MB", "right"))
    for stage in plan:
        table.add_row(
            stage.name,
            Text(stage.verdict, style="green" if stage.verdict == "HIT" else "yellow"),
            Text(stage.reason),
            "" if stage.digest is None else stage.digest[:12],
            f"{stage.predicted_bytes / 1e6:.1f}",
        )
    return table


_VERDICTS = {"ok": "green", "warning": "yellow", "problem": "red"}


def findings_table(findings: list[Finding]) -> Table:
    """What was looked at, verdict, what was found, what to do."""
    table = _table(_narrow("what"), _narrow("verdict"), "found", "fix")
    for finding in findings:
        verdict = Text(finding.verdict, style=_VERDICTS[finding.verdict])
        table.add_row(finding.what, verdict, Text(finding.found), Text(finding.fix))
    return table


def result_tables(records: list[dict[str, Any]]) -> list[Table]:
    """One table per problem, in the order of the records."""
    problems = dict.fromkeys(record["problem"] for record in records)
    return [result_table([record for record in records if record["problem"] == name]) for name in problems]


def result_table(records: list[dict[str, Any]]) -> Table:
    """The records of one problem: a row per model, a column per metric; the conventions in the title.

    Columns are the metrics that the problem has; with several fields, also those of each field.

    Raises:
        ValueError: the records are of several problems.
    """
    first = records[0]
    if any(record["problem"] != first["problem"] for record in records):
        raise ValueError("the records are of several problems: make a table of each")
    steps, points = first["frames"] - 1, " x ".join(map(str, first["resolution"]))
    title = (
        f"{first['dataset']}, {first['split']} split: {first['n_trajectories']} trajectories, "
        f"{steps} {'step' if steps == 1 else 'steps'}, {points} points, "
        f"{', '.join(first['fields_scored'])} scored, seed {first['seed']}; "
        "decoded fields, first frame not counted"
    )
    skipped = next(
        (record["frames_skipped"] for record in records if record["metric"] == "pdebench_nrmse"), 1
    )
    if skipped != 1:
        title += f"; in PDEBench's metrics {frames_counted(skipped)}"
    values = {(record["model"], record["metric"], record["field"]): record["value"] for record in records}
    measured = {(metric, field) for _, metric, field in values}
    columns = [
        (metric, field)
        for metric in HEADINGS
        for field in (None, *first["fields_scored"])
        if (metric, field) in measured
    ]
    headers = [
        HEADINGS[metric] if field is None else f"{HEADINGS[metric].removeprefix('trajectory ')} {field}"
        for metric, field in columns
    ]
    table = _table(_narrow("model"), *(_narrow(name, "right") for name in headers), title=Text(title))
    for model in dict.fromkeys(record["model"] for record in records):
        cells = [values.get((model, metric, field)) for metric, field in columns]
        table.add_row(model, *("" if cell is None else f"{cell:.3g}" for cell in cells))
    return table


def gate_table(verdicts: list[dict[str, Any]]) -> Table:
    """A row per number that a gate limits, of gates.json."""
    table = _table(
        *map(_narrow, ("gate", "of", "metric", "problem", "field")),
        *(_narrow(name, "right") for name in ("at least", "value", "at most")),
        _narrow("verdict"),
    )
    for row in verdicts:
        value = "missing" if row["value"] is None else f"{row['value']:.4g}"
        limits = (number(row[key], "g") for key in ("at_least", "at_most"))
        verdict = "passed" if row["passed"] else "failed"
        table.add_row(
            *(row[key] or "" for key in ("kind", "subject", "metric", "problem", "field")),
            next(limits), value, next(limits),
            Text(verdict, style="green" if row["passed"] else "red"),
        )  # fmt: skip
    return table


def seed_tables(runs: list[list[dict[str, Any]]]) -> dict[str, Table]:
    """Of each problem a table of runs that differ in their seeds: of every metric its mean over seeds and its range.

    runs: the records of each run.
    """
    tables = {}
    for problem in dict.fromkeys(record["problem"] for record in runs[0]):
        values: dict[tuple[str, str], list[float]] = {}
        for record in (record for run in runs for record in run if record["problem"] == problem):
            if record["field"] is None and record["value"] is not None and record["metric"] in HEADINGS:
                values.setdefault((record["model"], record["metric"]), []).append(record["value"])
        measured = [metric for metric in HEADINGS if any(metric == known for _, known in values)]
        seeds = sorted({record["seed"] for run in runs for record in run})
        title = Text(f"{problem}: mean over seeds {', '.join(map(str, seeds))} [lowest, highest]")
        table = _table(
            _narrow("model"), *(_narrow(HEADINGS[name], "right") for name in measured), title=title
        )
        for model in dict.fromkeys(model for model, _ in values):
            table.add_row(model, *(_range(values.get((model, metric), [])) for metric in measured))
        tables[problem] = table
    return tables


def _range(values: list[float]) -> str:
    if not values:
        return ""
    mean = sum(values) / len(values)
    if max(values) == min(values):
        return f"{mean:.3g}"
    return f"{mean:.3g} [{min(values):.3g}, {max(values):.3g}]"


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
        broken = sum(not column.no_wrap for column, _ in chosen)
        spare = max(0, width + _GAP - sum(least + _GAP for _, least in chosen)) // max(1, broken)
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


def comparison_table(records: list[dict[str, Any]], stage: str) -> Table:
    """The records of an A/B comparison, a row per arm."""
    seeds = ", ".join(map(str, records[0]["seeds"]))
    heads = (
        "s/step",
        "steps a second / baseline's",
        "s in all",
        "s to the baseline's error",
        "speed to it / baseline's",
        "validation error",
        "error / baseline's",
        "GB",
        "memory / baseline's",
        "gates",
    )
    table = Table(
        "training",
        *(Column(head, justify="right") for head in heads),
        box=None,
        pad_edge=False,
        title=f"{stage}, seeds {seeds}; ratios of pairs with 95 % intervals",
        title_justify="left",
    )
    for record in records:
        reached = record["seconds_to_target"]
        verdict = "" if "failed" not in record else "failed" if record["failed"] else "passed"
        table.add_row(
            record["arm"],
            f"{record['seconds_per_step']:.3g}",
            str(record.get("step_speed", "")),
            f"{record['seconds']:.3g}",
            "never" if reached is None else f"{reached:.3g}",
            str(record.get("speed") or ""),
            f"{record['error']:.3g}",
            str(record.get("error_ratio") or ""),
            number(record["memory_gigabytes"], ".2g"),
            number(record.get("memory_ratio"), ".2f"),
            Text(verdict, style={"failed": "red", "passed": "green"}.get(verdict, "")),
        )
    return table


def number(value: float | None, form: str) -> str:
    """Nothing where there is none."""
    return "" if value is None else format(value, form)


def rows_of(table: Table) -> list[dict[str, str]]:
    """The cells of a table by their headings."""
    names = [str(column.header) for column in table.columns]
    cells = [list(column.cells) for column in table.columns]
    return [dict(zip(names, map(str, row), strict=True)) for row in zip(*cells, strict=True)]


def duration(seconds: float) -> str:
    """Seconds, minutes, or hours and minutes."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def money(usd: float | None) -> str:
    """US dollars, with what is less than a cent; empty where it is not known."""
    return "" if usd is None else f"{usd:.2f}" if usd >= 1 else f"{usd:.3g}"


def with_interval(value: float | None, low: float | None, high: float | None) -> str:
    """A number and its 95 % interval, where it has one."""
    if value is None:
        return ""
    return f"{value:.3g}" if low is None or high is None else f"{value:.3g} [{low:.3g}, {high:.3g}]"
