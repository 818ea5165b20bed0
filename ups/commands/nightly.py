"""`ups bench nightly`: the fixed suite, against the nights before."""

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path

from rich.table import Table
from rich.text import Text

from ups.artifacts.journal import sole_writer
from ups.commands.arguments import add_root
from ups.commands.tables import print_progress, show
from ups.errors import ConfigurationError
from ups.pipeline.nightly.history import accept
from ups.pipeline.nightly.night import NightResult, default_history, run_night
from ups.pipeline.nightly.report import write_report
from ups.pipeline.nightly.suite import FULL, QUICK, require_measurement


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Measure a fixed suite (accuracy, training step, cache, generators), compare it with the nights before on the same hardware, "
        "and add it to their history. The exit code is 8 where something is worse; what, by how much and since which commits is said. "
        "Nothing else should be running."
    )
    parser.add_argument(
        "--history", type=Path, metavar="FILE", help="JSONL (default: nightly/SUITE.jsonl in the root)"
    )
    parser.add_argument("--report", type=Path, metavar="FILE", help="HTML (default: beside the history)")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="NAME",
        choices=tuple(FULL.sections),
        help=f"one section: {', '.join(FULL.sections)}; repeatable",
    )
    parser.add_argument(
        "--quick", action="store_true", help="in half a minute, to see how it works; the numbers mean nothing"
    )
    parser.add_argument(
        "--accept",
        action="append",
        default=[],
        metavar="MEASUREMENT",
        help="measure nothing; what this one has become is wanted, and later nights are compared with it; repeatable",
    )
    parser.add_argument("--because", metavar="REASON", help="why, for the history; goes with --accept")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_root(parser)


def execute(options: argparse.Namespace) -> None:
    """Measure and judge a night, or accept what became of measurements.

    Raises:
        RegressionError: something is worse.
    """
    suite = QUICK if options.quick else FULL
    history = options.history or default_history(suite, options.root)
    for name in options.accept:
        require_measurement(name, where="--accept")
    if bool(options.accept) != bool(options.because):
        raise ConfigurationError(
            "one is of no use without the other", where="--accept and --because", fix="give both"
        )
    if options.accept:
        with sole_writer(history) as journal:
            accept(
                journal,
                suite,
                options.accept,
                options.because,
                datetime.now(UTC).isoformat(timespec="seconds"),
            )
        return
    result = run_night(suite, history, root=options.root, on_line=print_progress, only=options.only)
    report = options.report or history.with_suffix(".html")
    write_report(result, report, root=options.root, on_line=print_progress)
    if options.json:
        print(json.dumps(as_json(result), indent=2))
    else:
        show(verdict_table(result))
        print(f"report: {report}")
    result.require_no_regression()


def as_json(result: NightResult) -> dict[str, object]:
    """The night's line of the history, and its judgements."""
    return {
        "night": result.record,
        "judgements": [judgement.to_json() for judgement in result.judgements],
        "regressions": result.regressions,
    }


def verdict_table(result: NightResult) -> Table:
    """A row for each measurement."""
    title = Text(
        f"{result.suite.name} {result.suite.digest}: {len(result.before)} nights before on this hardware"
    )
    table = Table(
        "measurement",
        "verdict",
        "this night",
        "change",
        "nights before",
        "band",
        title=title,
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    for judgement in result.judgements:
        band = "" if judgement.band is None else f"{judgement.band[0]:.4g} to {judgement.band[1]:.4g}"
        table.add_row(
            judgement.name,
            judgement.status,
            f"{judgement.value:.4g}",
            "" if judgement.change is None else f"{judgement.change:+.1%}",
            "" if judgement.expected is None else f"{judgement.expected:.4g}",
            band,
        )
    return table
