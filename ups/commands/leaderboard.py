"""`ups leaderboard add|show|compare`."""

import argparse
import json
from pathlib import Path

from rich.table import Column, Table
from rich.text import Text

from ups.artifacts.files import write_text
from ups.commands.arguments import add_root
from ups.commands.compare_runs import SUMMARY, add_comparison, execute_comparison
from ups.commands.tables import duration, money, print_progress, show, with_interval
from ups.metric_labels import HEADLINE, METRICS
from ups.pipeline.leaderboard import LEADERBOARD, Place, add, ranked, read, title_of
from ups.pipeline.run import find_root, find_run
from ups.pipeline.tool_process import run_tool


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    adding = actions.add_parser("add", help="add finished runs")
    adding.description = f"Append finished runs to {LEADERBOARD} of the root, a line per problem; what is there already is left as it is."
    adding.add_argument(
        "runs",
        metavar="RUN",
        nargs="+",
        type=Path,
        help="directory below runs/, by its path or its name",
    )
    add_root(adding)
    showing = actions.add_parser("show", help="runs of each problem, the champion first")
    showing.description = (
        "Runs are compared only where equation, parameters, grid, frames, scored fields and the bytes of the test trajectories are the "
        "same. Each shows its best model; those that fail their gates come last."
    )
    showing.add_argument("--problem", metavar="P", help="only this one, by its id, name or data")
    showing.add_argument(
        "--metric",
        metavar="M",
        choices=[metric.name for metric in METRICS],
        default=HEADLINE,
        help=f"by which they are ranked (default {HEADLINE})",
    )
    form = showing.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument(
        "--html", metavar="FILE", type=Path, help="write one self-contained page, whose columns can be sorted"
    )
    add_root(showing)
    add_comparison(actions.add_parser("compare", help=SUMMARY))


def execute(options: argparse.Namespace) -> None:
    """Do what was asked for."""
    {"add": _add, "show": _show, "compare": execute_comparison}[options.action](options)


def _add(options: argparse.Namespace) -> None:
    root = find_root(options.root)
    rows = add([find_run(run, options.root) for run in options.runs], root)
    for row in rows:
        print(f"added: {row.run['name']} on {title_of(row.problem)}")
    if not rows:
        print("all are there already")


def _show(options: argparse.Namespace) -> None:
    root = find_root(options.root)
    boards = ranked(read(root), options.metric, options.problem)
    if options.json:
        print(json.dumps([[_described(place) for place in board] for board in boards], indent=2))
    elif options.html:
        _write_page(boards, options.metric, options.html, root)
    elif not boards:
        print("no run is on the leaderboard; `ups leaderboard add RUN` adds one")
    for board in [] if options.json or options.html else boards:
        show(_table(board, options.metric))
        print()


def _described(place: Place) -> dict[str, object]:
    return place.row.to_json() | {"model": place.model, "value": list(place.number)}


def _write_page(boards: list[list[Place]], metric: str, file: Path, root: Path) -> None:
    page = run_tool(
        "ups.tools.draw_leaderboard",
        {
            "metric": metric,
            "beside": str(file.absolute().parent),
            "root": str(root),
            "boards": [[_described(place) for place in board] for board in boards],
        },
        place=root / "artifacts" / ".work",
        threads=1,
        on_line=print_progress,
    )
    write_text(file, page)
    print(file)


def _table(board: list[Place], metric: str) -> Table:
    table = Table(
        *(Column(head, no_wrap=True) for head in ("", "run", "model")),
        Column(metric, justify="right", no_wrap=True),
        Column("gates", no_wrap=True),
        *(Column(head, justify="right", no_wrap=True) for head in ("seed", "time", "USD")),
        "hardware",
        Column("code", no_wrap=True),
        title=Text(title_of(board[0].row.problem)), title_justify="left", box=None, pad_edge=False,
    )  # fmt: skip
    for number, place in enumerate(board, 1):
        run = place.row.run
        table.add_row(
            str(number),
            run["name"],
            place.model,
            with_interval(*place.number),
            Text(run["gates"], style={"failed": "red", "passed": "green"}.get(run["gates"], "")),
            str(run["seed"]),
            duration(run["seconds_from_scratch"]),
            money(run["cost_from_scratch_usd"]),
            run["hardware"],
            code_of(run["commit"], run["uncommitted_changes"]),
        )
    return table


def code_of(commit: str | None, changed: bool) -> str:
    """A commit, and a + where there were changes on top of it."""
    return "" if commit is None else f"{commit[:8]}{'+' if changed else ''}"
