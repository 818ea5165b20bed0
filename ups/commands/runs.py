"""`ups runs ls|show|compare`."""

import argparse
import json
from collections import Counter
from typing import Any, get_args

from rich.table import Column, Table
from rich.text import Text

from ups.commands.arguments import add_root, add_run, add_stage, count
from ups.commands.compare_runs import SUMMARY, add_comparison, execute_comparison
from ups.commands.tables import (
    console,
    duration,
    gate_table,
    money,
    print_progress,
    result_tables,
    show,
    with_interval,
)
from ups.config.load import parse_overrides
from ups.errors import ConfigurationError, IntegrityError
from ups.pipeline.run import RUNS, find_root, find_run
from ups.pipeline.run_record import RunRecord, State, best_model, where

_STYLES = {"running": "cyan", "finished": "green", "failed": "red", "interrupted": "yellow"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("ls", help="list runs, the newest last")
    listing.description = (
        "List the runs below runs/, the newest last. A run goes on as long as its process lives, whatever it says; one whose process "
        "was killed is interrupted. Its error is that of its best model, with the 95 % interval; time and cost are of the stages "
        "that it built itself, and behind the slash of all its stages."
    )
    listing.add_argument("--name", help="only those whose directory's name contains this")
    listing.add_argument("--state", choices=get_args(State), help="only those in this state")
    add_stage(listing, "--stage", metavar="STAGE", help="only those that built this stage themselves")
    listing.add_argument(
        "--where",
        dest="wanted",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="only those whose configuration has this value, e.g. training.operator.learning_rate=2e-3; repeatable",
    )
    listing.add_argument("--last", type=count, metavar="N", help="no more than the N newest of them")
    listing.add_argument("--json", action="store_true", help="print JSON")
    add_root(listing)
    showing = actions.add_parser("show", help="everything about one run")
    showing.add_argument("--json", action="store_true", help="print JSON")
    add_run(showing)
    add_comparison(actions.add_parser("compare", help=SUMMARY))


def execute(options: argparse.Namespace) -> None:
    """Print what was asked for."""
    {"ls": _ls, "show": _show, "compare": execute_comparison}[options.action](options)


def _ls(options: argparse.Namespace) -> None:
    """A damaged directory is named, and the others are listed."""
    holds, found = where(parse_overrides(options.wanted)), []
    for path in sorted((find_root(options.root) / RUNS).glob("*/"), reverse=True):
        if len(found) == options.last:
            break
        if options.name is not None and options.name not in path.name:
            continue
        try:
            run = RunRecord.read(path)
        except (ConfigurationError, IntegrityError) as error:
            print_progress(f"not listed: {error}")
            continue
        built = options.stage is None or not run.stages.get(options.stage, {"hit": True})["hit"]
        if built and options.state in (None, run.state) and holds(run):
            found.append(run)
    found.reverse()
    if options.json:
        print(json.dumps([_described(run) for run in found], indent=2))
        return
    heads = ("stages", "error", "gates", "s here / all", "USD here / all")
    table = Table(
        *(Column(head, no_wrap=True) for head in ("run", "state")),
        *(Column(head, justify="right", no_wrap=True) for head in heads),
        box=None, pad_edge=False,
    )  # fmt: skip
    for run in found:
        table.add_row(
            run.name, _state(run), _stages(run), _errors(run), run.verdict, _seconds(run), _cost(run)
        )
    show(table)


def _show(options: argparse.Namespace) -> None:
    run = RunRecord.read(find_run(options.run, options.root))
    if options.json:
        print(
            json.dumps(_described(run) | {"configuration": run.configuration, "gates": run.gates}, indent=2)
        )
        return
    about = Table(Column(no_wrap=True), "", box=None, pad_edge=False, show_header=False)
    environment = run.environment
    changes = ", with uncommitted changes" if environment["uncommitted_changes"] else ""
    for name, value in {
        "run": run.name,
        "state": _state(run),
        "why": run.message,
        "started": f"{run.started:%Y-%m-%d %H:%M:%S} UTC",
        "command": environment["command"],
        "code": f"{environment['commit']}{changes}",
        "machine": f"{environment['processor']}, {environment['cores']} cores",
        "took": f"{_seconds(run)} s",
        "cost": f"{_cost(run)} USD" if _cost(run) else None,
        "report": str(run.path / "report.html") if (run.path / "report.html").exists() else None,
    }.items():
        if value:
            about.add_row(name, value if isinstance(value, Text) else Text(value))
    console().print(about)
    print()
    show(_stage_table(run))
    if run.gates:
        print()
        show(gate_table(run.gates))
    for table in result_tables(run.table):
        print()
        show(table)


def _stage_table(run: RunRecord) -> Table:
    heads = ("time", "USD here", "USD from scratch")
    table = Table(
        Column("stage", no_wrap=True), "", *(Column(head, justify="right") for head in heads), "why",
        box=None, pad_edge=False,
    )  # fmt: skip
    for planned in run.plan:
        row = run.stages.get(planned["stage"])
        if row is None:
            table.add_row(planned["stage"], "not there", "", "", "", planned["reason"])
            continue
        whole = row.get("seconds_from_scratch", row["seconds"])
        table.add_row(
            planned["stage"],
            "found" if row["hit"] else "built",
            duration(row["seconds"]),
            money(run.cost(0 if row["hit"] else row["seconds"])),
            money(run.cost(whole)),
            Text(row["reason"]),
        )
    return table


def _described(run: RunRecord) -> dict[str, Any]:
    """As JSON."""
    return {
        "run": run.name,
        "path": str(run.path),
        "configuration_digest": run.digest,
        "state": run.state,
        "message": run.message,
        "started": run.started.isoformat(),
        "stages": {
            row["stage"]: None if row["stage"] not in run.stages else
            "found" if run.stages[row["stage"]]["hit"] else "built"
            for row in run.plan
        },
        "best": {
            problem: {"model": found[0], "error": found[1].value, "interval": found[1][1:]}
            for problem, results in run.results.items()
            if (found := best_model(results)) is not None
        },
        "verdict": run.verdict,
        "seconds": run.seconds,
        "seconds_from_scratch": run.seconds_from_scratch,
        "cost_usd": run.cost(run.seconds),
        "cost_from_scratch_usd": run.cost(run.seconds_from_scratch),
        "environment": run.environment,
    }  # fmt: skip


def _state(run: RunRecord) -> Text:
    return Text(run.state, style=_STYLES[run.state])


def _stages(run: RunRecord) -> str:
    """For example "5 found, 1 built, 1 to do"."""
    kinds = Counter("found" if row["hit"] else "built" for row in run.stages.values())
    kinds["to do"] = len(run.plan) - len(run.stages)
    return ", ".join(f"{kinds[kind]} {kind}" for kind in ("found", "built", "to do") if kinds[kind])


def _errors(run: RunRecord) -> str:
    found = {problem: best_model(results) for problem, results in run.results.items()}
    shown = {problem: with_interval(*best[1]) for problem, best in found.items() if best is not None}
    return (
        "".join(shown.values())
        if len(shown) < 2
        else ", ".join(f"{problem} {error}" for problem, error in shown.items())
    )


def _seconds(run: RunRecord) -> str:
    return f"{run.seconds:.0f} / {run.seconds_from_scratch:.0f}"


def _cost(run: RunRecord) -> str:
    cost = run.cost(run.seconds)
    return "" if cost is None else f"{money(cost)} / {money(run.cost(run.seconds_from_scratch))}"
