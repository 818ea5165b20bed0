"""The page of the leaderboard: one self-contained file, whose tables can be sorted."""

import base64
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ups.metric_labels import METRICS, frames_counted
from ups.report.catalogue import entry, model_named
from ups.report.results import write_value
from ups.report.template import render

_SCRIPT = Path(__file__).with_name("sort.js")


@dataclass(frozen=True)
class Entry:
    """A run's place.

    Attributes:
        value, interval: of the metric, as they are shown; `exact` has all digits.
        when: the run began.
        run: see `ups.pipeline.leaderboard.Row`.
        report: address of its report, relative to the page; None where there is none.
        bar: ends of the interval in per cent of the largest one, or the value twice.
    """

    place: int
    model: str
    colour: str
    value: str
    interval: str
    exact: float
    bar: tuple[float, float]
    when: datetime
    run: Mapping[str, Any]
    report: str | None


@dataclass(frozen=True)
class Board:
    """The runs of one problem, the champion first."""

    problem: Mapping[str, Any]
    entries: list[Entry]


def html(boards: Sequence[Sequence[Mapping[str, Any]]], metric: str, *, root: Path, beside: Path) -> str:
    """The page.

    Args:
        boards: of every problem its rows, each with "model" and "value" [value, low, high].
        metric: by which they are ranked.
        root: that reports' paths are relative to.
        beside: directory of the page.

    Raises:
        IntegrityError: a row lacks something.
    """
    shown = next(known for known in METRICS if known.name == metric)
    script = _SCRIPT.read_text()
    return render(
        "leaderboard.html",
        metric=shown,
        frames_counted=frames_counted,
        boards=[
            Board(entry(board[0], "problem", where="leaderboard"), _entries(board, shown.kind, root, beside))
            for board in boards
        ],
        script=script,
        script_sum=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _entries(board: Sequence[Mapping[str, Any]], kind: Any, root: Path, beside: Path) -> list[Entry]:
    ends = [
        (value if low is None else low, value if high is None else high)
        for value, low, high in (row["value"] for row in board)
    ]
    largest = max(high for _, high in ends) or 1.0
    entries = []
    for place, (row, (low, high)) in enumerate(zip(board, ends, strict=True), 1):
        value, model = row["value"], model_named(row["model"])
        run, report = row["run"], root / row["run"]["report"]
        interval = "" if value[1] is None else f"{write_value(low, kind)} to {write_value(high, kind)}"
        entries.append(
            Entry(
                place, model.label, model.colour, write_value(value[0], kind), interval, value[0],
                (100 * max(0.0, low) / largest, 100 * high / largest),
                datetime.strptime(run["name"].partition("-")[0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC),
                run, os.path.relpath(report, beside) if report.is_file() else None,
            )
        )  # fmt: skip
    return entries
