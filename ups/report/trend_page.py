"""The page of a night of the benchmark: one self-contained file."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ups.report import drawing
from ups.report.template import render
from ups.report.trend_figures import Point, Trend, trends
from ups.report.writing import DASH, number, percent

_MARKS = {"worse": "bad", "drifted": "bad", "too few nights": "fair"}
"""Classes of the badges of verdicts; of the others `good`."""


@dataclass(frozen=True)
class Row:
    """A line of the table of verdicts.

    Attributes:
        mark: class of its badge.
    """

    name: str
    meaning: str
    value: str
    repeats: str
    expected: str
    band: str
    change: str
    nights: int
    verdict: str
    mark: str


def html(request: Mapping[str, Any]) -> str:
    """The page.

    request: see `ups.pipeline.nightly.report.write_report`.
    """
    night = request["night"]
    rows = [
        _row(measurement, judgement, night["measurements"][measurement["name"]]["repeats"])
        for measurement, judgement in zip(request["measurements"], request["judgements"], strict=True)
    ]
    sections: dict[str, list[Trend]] = {}
    for measurement, trend in zip(request["measurements"], trends_of(request), strict=True):
        sections.setdefault(measurement["section"], []).append(trend)
    return render(
        "trends.html",
        suite=request["suite"],
        night=night,
        date=datetime.fromisoformat(night["date"]),
        nights=len(request["before"]),
        rows=rows,
        unjudged=sum(row.mark == "fair" for row in rows),
        regressions=request["regressions"],
        changes=request["changes"],
        pictures={name: _embedded(shown) for name, shown in sections.items()},
    )


def trends_of(request: Mapping[str, Any]) -> list[Trend]:
    """Of every measurement of the night, over all nights that have it."""
    nights = [*request["before"], request["night"]]
    return [
        Trend(
            judgement["name"],
            [
                _point(night, judgement["name"])
                for night in nights
                if judgement["name"] in night["measurements"]
            ],
            judgement["expected"],
            judgement["band"],
        )
        for judgement in request["judgements"]
    ]


def _point(night: Mapping[str, Any], name: str) -> Point:
    measured = night["measurements"][name]
    return Point(
        datetime.fromisoformat(night["date"]),
        measured["value"],
        min(measured["repeats"]),
        max(measured["repeats"]),
        night["verdict"].get(name, ""),
    )


def _row(measurement: Mapping[str, Any], judgement: Mapping[str, Any], repeats: list[float]) -> Row:
    band, status = judgement["band"], judgement["status"]
    return Row(
        judgement["name"],
        measurement["meaning"],
        number(judgement["value"]),
        f"{len(repeats)} from {number(min(repeats))} to {number(max(repeats))}",
        number(judgement["expected"]),
        DASH if band is None else f"{number(band[0])} to {number(band[1])}",
        DASH if judgement["change"] is None else percent(judgement["change"], signed=True),
        judgement["nights"],
        status,
        _MARKS.get(status, "good"),
    )


def _embedded(shown: list[Trend]) -> str:
    content = base64.b64encode(drawing.render(trends(shown), "svg")).decode()
    return f"data:image/svg+xml;base64,{content}"
