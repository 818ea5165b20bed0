"""`ups sweep FILE`, `ups sweep status FILE`, `ups sweep report FILE`."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Column, Table
from rich.text import Text

from ups.commands.arguments import add_root
from ups.commands.tables import number, print_progress, show
from ups.pipeline.device import require_machine
from ups.pipeline.plan import PlannedStage
from ups.pipeline.probe import Prediction, probe
from ups.pipeline.sweeps.here import one_after_the_other
from ups.pipeline.sweeps.plan import StageWork, require_room, work_by_stage
from ups.pipeline.sweeps.report import write_sweep_report
from ups.pipeline.sweeps.sweep import SweepRun


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Train one configuration for each combination of some values of a base file, one after the other, and rank them by their "
        "error on the validation split; the best run the whole chain. Shows the plan first. A sweep that was broken off goes on "
        "where it was. Several at a time, on any number of machines: the flow `sweep` (docs/how-to/sweep.md)."
    )
    parser.add_argument(
        "action",
        nargs="?",
        choices=("run", "status", "report"),
        default="run",
        help="status: who is how far; report: write report.html again (default: run)",
    )
    parser.add_argument("file", metavar="FILE", type=Path, help="YAML file, e.g. configs/sweeps/tiny.yaml")
    parser.add_argument("--plan", action="store_true", help="show what would be done, and end")
    parser.add_argument(
        "--probe",
        action="store_true",
        help="with the plan, minutes and cost: the first member with something to build is tried for two or three minutes, and stands for all",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_root(parser)


def execute(options: argparse.Namespace) -> None:
    """Do what is asked for; a sweep ends with its table and its report, also where members failed."""
    run = SweepRun(options.file, options.root)
    if options.action == "status":
        _show_status(run, as_json=options.json)
        return
    if options.action == "report":
        _show_result(run, as_json=options.json)
        return
    plans = run.plan()
    work = work_by_stage(run, plans, _probed(run, plans) if options.probe else None)
    if options.plan:
        _show_plan(run, plans, work, as_json=options.json)
        return
    for configuration in run.configurations.values():
        require_machine(configuration)
    require_room(run, work)
    if not options.json:
        _show_plan(run, plans, work, as_json=False)
    try:
        run.conduct(one_after_the_other(print_progress))
    finally:
        if run.directory.is_dir():
            _show_result(run, as_json=options.json)
    run.require_done()


def _probed(run: SweepRun, plans: dict[str, list[PlannedStage]]) -> dict[str, Prediction]:
    """Of the first member with something to build; nothing where all is sealed."""
    for member in run.members:
        plan = plans[member.name]
        if any(stage.verdict == "MISS" for stage in plan):
            configuration = run.configurations[member.name]
            return probe(
                member.config, member.overrides, configuration, plan, run.store.root, on_line=print_progress
            )
    return {}


def _show_plan(
    run: SweepRun, plans: dict[str, list[PlannedStage]], work: list[StageWork], *, as_json: bool
) -> None:
    seconds = (
        None
        if any(one.seconds is None for one in work if one.different > one.hits)
        else sum(one.seconds or 0.0 for one in work)
    )
    usd = None if seconds is None else run.members[0].configuration.resources.cost(seconds)
    if as_json:
        members = {name: [stage.to_json() for stage in plan] for name, plan in plans.items()}
        shown = {
            "members": members,
            "stages": [asdict(one) for one in work],
            "seconds": seconds,
            "cost_usd": usd,
        }
        print(json.dumps(shown, indent=2))
        return
    show(members_table(run, plans))
    print()
    show(work_table(work))
    if seconds is not None and any(one.seconds for one in work):
        cost = "" if usd is None else f", {usd:.2f} USD"
        print(
            f"in all {seconds / 60:.1f} min one after the other{cost}; a prediction, by a probe of one member"
        )


def members_table(run: SweepRun, plans: dict[str, list[PlannedStage]]) -> Table:
    """A row per member, with the verdict on each of its stages."""
    stages = [stage.name for stage in next(iter(plans.values()))]
    table = _table(f"{len(plans)} members of {run.name}", "member", *stages)
    for name, plan in plans.items():
        verdicts = [stage.verdict if stage.digest is not None else stage.reason for stage in plan]
        table.add_row(name, *(Text(v, style={"HIT": "green", "MISS": "yellow"}.get(v, "")) for v in verdicts))
    return table


def work_table(work: list[StageWork]) -> Table:
    """A row per stage: what members share, and what is left."""
    heads = ("members", "different", "HIT", "to build", "MB", "min")
    table = _table("", "stage", *heads)
    for one in work:
        minutes = "" if one.seconds is None else f"{one.seconds / 60:.1f}"
        counts = (one.members, one.different, one.hits, one.different - one.hits)
        table.add_row(one.stage, *map(str, counts), f"{one.bytes / 1e6:.1f}", minutes)
    return table


def _show_status(run: SweepRun, *, as_json: bool) -> None:
    standings, running = run.standings(), run.is_running()
    if as_json:
        print(json.dumps({"sweep": run.name, "running": running, "members": standings}, indent=2))
        return
    table = _table(run.name, "member", "state", "step", "of", "validation error", "s", "why")
    for one in standings:
        table.add_row(
            one["name"],
            one["state"],
            str(one["step"]),
            str(one["steps"]),
            number(one["error"], ".4g"),
            number(one["seconds"], ".3g"),
            one["message"],
        )
    show(table)
    done = sum(one["state"] in {"trained", "finished"} for one in standings)
    print(f"{done} of {len(standings)} done; {'a process conducts it' if running else 'nobody conducts it'}")


def _show_result(run: SweepRun, *, as_json: bool) -> None:
    rows = run.ranking()
    report = write_sweep_report(run, rows, on_line=print_progress)
    if as_json:
        print(json.dumps({"sweep": run.name, "report": str(report), "ranking": rows}, indent=2))
        return
    show(ranking_table(run, rows))
    print(f"report: {report}")


def ranking_table(run: SweepRun, rows: list[dict[str, Any]]) -> Table:
    """A row per configuration, the best first."""
    problems = list(dict.fromkeys(problem for row in rows for problem in row["test"]))
    tested = [f"test error{f' {problem}' if len(problems) > 1 else ''}" for problem in problems]
    over = f"seeds ({run.sweep.seeds})" if run.sweep.seeds > 1 else "test trajectories"
    priced = any(row["cost_usd"] is not None for row in rows)
    told = any(row["message"] for row in rows)
    table = _table(
        f"{run.name}, by the {run.sweep.rank_by}'s validation error; ± 95 % over {over}",
        "", "configuration", "state", "step", "validation error", *tested, "s", *(["USD"] if priced else []),
        *(["why"] if told else []),
    )  # fmt: skip
    for place, row in enumerate(rows, 1):
        table.add_row(
            str(place),
            row["name"],
            row["state"],
            f"{row['step']}/{row['steps']}",
            _with_interval(row["error"], row["half_width"]),
            *(_with_interval(*row["test"].get(problem, (None, None))) for problem in problems),
            number(row["seconds"], ".3g"),
            *([number(row["cost_usd"], ".2f")] if priced else []),
            *([row["message"]] if told else []),
        )
    return table


def _with_interval(value: float | None, half_width: float | None) -> str:
    return number(value, ".4g") + ("" if half_width is None else f" ± {half_width:.2g}")


def _table(title: str, first: str, *others: str) -> Table:
    return Table(
        Column(first, no_wrap=True),
        *(Column(name, no_wrap=True) for name in others),
        title=Text(title) if title else None,
        title_justify="left",
        box=None,
        pad_edge=False,
    )
