"""`ups run CONFIG`."""

import argparse
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ups.artifacts.files import read_json
from ups.commands.arguments import add_configuration, add_rebuild, add_root, add_stage
from ups.commands.predictions import predictions_table, total
from ups.commands.tables import (
    console,
    findings_table,
    gate_table,
    plan_table,
    print_progress,
    result_tables,
    seed_tables,
    show,
)
from ups.config.load import load_configuration, parse_overrides
from ups.errors import GateError
from ups.pipeline.execute import Built
from ups.pipeline.finish_hooks import finish_hooks
from ups.pipeline.readiness.checks import require_no_problem
from ups.pipeline.readiness.preflight import preflight, try_stages
from ups.pipeline.run import GATES, OUTSIDE, Run, find_root, overrides_by_seed, run_all


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_configuration(parser)
    add_root(parser)
    add_stage(
        parser, "--until", default=None, help="last stage to run, of those that it needs; all by default"
    )
    add_rebuild(parser)

    parser.add_argument(
        "--dry",
        action="store_true",
        help="build nothing: check this machine, try every stage that is to be built with few trajectories and steps, and say what "
        "the run will take and cost; exit code 3 with what is missing",
    )


def execute(options: argparse.Namespace) -> None:
    """See `run_and_show`; with --dry, `dry_run`."""
    (dry_run if options.dry else run_and_show)(
        options.config,
        parse_overrides(options.assignments),
        root=options.root,
        until=options.until,
        rebuild=options.rebuild,
    )


def run_and_show(
    config: Path,
    overrides: Mapping[str, Any],
    *,
    root: Path | None = None,
    until: str | None = None,
    rebuild: Sequence[str] = (),
) -> None:
    """Plan, run, and end with the result table and the path of the report; of several seeds, with their range."""
    tables = []
    asked = datetime.now(UTC)  # once: what seeds share is built again once
    with finish_hooks(load_configuration(config, overrides), find_root(root)) as begun:
        for chosen in overrides_by_seed(config, overrides):
            run = Run.start(config, chosen, root=root, until=until, rebuild=rebuild, asked=asked)
            begun(run.directory)
            follow(run, until)
            if "evaluate" in run.plan:
                tables.append(read_json(run.directory / "metrics.json"))
    if len(tables) > 1:
        for table in seed_tables(tables).values():
            show(table)


def dry_run(
    config: Path,
    overrides: Mapping[str, Any],
    *,
    root: Path | None,
    until: str | None,
    rebuild: Sequence[str] = (),
) -> None:
    """Find out whether a run would work, and show what it would take. Nothing is built, and nothing left behind.

    Raises:
        PreflightError: something is missing, or a stage does not work.
    """
    first, place = overrides_by_seed(config, overrides)[0], find_root(root)
    ready = preflight(config, first, place, until=until, rebuild=rebuild)
    show(findings_table(ready.findings))
    print()
    require_no_problem(ready.findings, where=str(config))
    show(plan_table(ready.plan))
    print()
    predictions = try_stages(ready, config, first, place, on_line=print_progress)
    if not predictions:
        print("nothing is to be built")
        return
    show(predictions_table(predictions))
    print(f"every stage works. At least: {total(predictions, load_configuration(config, overrides))}")
    print("`ups plan --probe` measures what grows with the data, too")


def follow(run: Run, until: str | None) -> None:
    """Run with progress on the terminal.

    Raises:
        UpsError: see `run_all`; of a gate once all is shown.
    """
    terminal = console()
    show(plan_table(list(run.plan.values())))
    started = time.monotonic()

    def on_stage(name: str, built: Built | None) -> None:
        if built is None:
            return
        verdict = "cached" if built.hit else f"done in {built.artifact.manifest.seconds:.1f} s"
        terminal.print(f"[bold]{name}[/] {verdict}  {built.artifact.digest[:12]}")

    failure = None
    try:
        run_all(
            run,
            on_line=lambda line: terminal.print(line, markup=False, soft_wrap=True),
            on_stage=on_stage,
            until=until,
        )
    except GateError as error:
        failure = error
    if "evaluate" in run.built:
        for name in ("metrics.json", OUTSIDE):
            for table in result_tables(read_json(run.directory / name)):
                show(table)
        terminal.print(f"report: {run.directory / 'report.html'}", markup=False, soft_wrap=True)
    if (run.directory / GATES).exists():
        show(gate_table(read_json(run.directory / GATES)))
    seconds = time.monotonic() - started
    terminal.print(f"run: {run.directory}  ({seconds:.1f} s)", markup=False, soft_wrap=True)
    if failure is not None:
        raise failure
