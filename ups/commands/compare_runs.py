"""Two runs side by side: the action `compare` of `ups runs` and of `ups leaderboard`."""

import argparse
import json
from pathlib import Path
from typing import Any

from rich.table import Column, Table
from rich.text import Text

from ups.commands.arguments import add_root
from ups.commands.tables import print_progress, show, with_interval
from ups.metric_labels import HEADLINE, METRICS
from ups.pipeline.run import find_run
from ups.pipeline.run_comparison import compare

SUMMARY = "what two runs differ in, and what it changes"


def add_comparison(parser: argparse.ArgumentParser) -> None:
    """RUN RUN and the options."""
    parser.description = (
        "Keys of the configuration, code and machine that differ, and the results side by side. Second over first is the ratio of the "
        "mean errors on the same test trajectories, with the 95 % interval of a paired bootstrap: better or worse is what lies on "
        "one side of 1 with its whole interval."
    )
    for name in ("first", "second"):
        parser.add_argument(
            name, metavar="RUN", type=Path, help="directory below runs/, by its path or its name"
        )
    parser.add_argument(
        "--metric",
        choices=[metric.name for metric in METRICS],
        metavar="METRIC",
        default=HEADLINE,
        help=f"that is shown (default {HEADLINE}); of others than this one there is no interval of the ratio",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, with all metrics")
    add_root(parser)


def execute_comparison(options: argparse.Namespace) -> None:
    """Print the tables."""
    paths = [find_run(run, options.root) for run in (options.first, options.second)]
    found = compare(*paths, on_line=print_progress)
    if options.json:
        print(json.dumps(found, indent=2))
        return
    for number, run in zip(("first: ", "second:"), found["runs"], strict=True):
        print(number, run)
    print()
    different = found["configuration"] | found["environment"]
    if different:
        table = Table(Column("differs", no_wrap=True), "first", "second", box=None, pad_edge=False)
        for key, values in different.items():
            table.add_row(key, *(Text(json.dumps(value)) for value in values))
        show(table)
    else:
        print("same configuration, code and machine")
    numbers = [row for row in found["numbers"] if row["metric"] == options.metric]
    for problem in dict.fromkeys(row["problem"] for row in numbers):
        print(f"\n{problem}, {options.metric}")
        if problem in found["unpaired"]:
            print("the test trajectories are not the same, and nothing is paired")
        show(_results([row for row in numbers if row["problem"] == problem]))
    if not numbers:
        print("\nno number that both have")


def _results(rows: list[dict[str, Any]]) -> Table:
    table = Table(
        Column("model", no_wrap=True),
        *(Column(head, justify="right", no_wrap=True) for head in ("first", "second", "second / first")),
        "",
        box=None, pad_edge=False,
    )  # fmt: skip
    for row in rows:
        ratio = row["ratio"] or [None, None, None]
        table.add_row(
            row["model"],
            with_interval(*row["first"]),
            with_interval(*row["second"]),
            with_interval(*ratio),
            _verdict(*ratio),
        )
    return table


def _verdict(value: float | None, low: float | None, high: float | None) -> Text:
    """Of a ratio of errors."""
    if value is None or low is None or high is None:
        return Text("")
    if low <= 1 <= high:
        return Text("no difference shown")
    return Text("better", style="green") if high < 1 else Text("worse", style="red")
