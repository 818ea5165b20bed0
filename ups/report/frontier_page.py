"""The page of a frontier: what an answer costs, one self-contained file."""

from collections.abc import Mapping
from typing import Any

from ups.report import drawing
from ups.report.embedding import as_address
from ups.report.frontier_figure import frontier, shown
from ups.report.template import render

_HEADLINES = {
    "pays": "The surrogate pays",
    "never": "The surrogate never pays here: the solver is as accurate in less time",
    "not known": "It is not known whether the surrogate pays",
    "mixed": "Whether the surrogate pays depends on how many trajectories are forecast at once",
}


def html(record: Mapping[str, Any]) -> str:
    """The page. record: see `ups.benchmarks.frontier.measure_frontier`."""
    verdicts = {each["verdict"] for each in record["verdicts"]}
    return render(
        "frontier.html",
        record=record,
        headline=_HEADLINES[verdicts.pop() if len(verdicts) == 1 else "mixed"],
        pays="pays" in {each["verdict"] for each in record["verdicts"]},
        picture=as_address(drawing.render(frontier(record), "svg"), "svg"),
        shown=shown,
    )
