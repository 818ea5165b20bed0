"""`ups sync [RUN...]`."""

import argparse
from pathlib import Path

from ups.commands.arguments import add_root
from ups.errors import ConfigurationError
from ups.pipeline.mirror import MIRRORED, is_sent, send
from ups.pipeline.run import METRICS, RUNS, find_root, find_run
from ups.pipeline.run_record import is_running


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Send runs to W&B that were offline, or whose sending was cut short: those named, or all below runs/ that have tracking. What W&B has "
        "already is not sent again, and a run that goes on is skipped."
    )
    parser.add_argument(
        "runs", metavar="RUN", type=Path, nargs="*", help="directory below runs/, by its path or its name"
    )
    add_root(parser)


def execute(options: argparse.Namespace) -> None:
    """Send what is not sent yet, one run after the other."""
    for run in _chosen(options.runs, options.root):
        if is_running(run):
            print(f"{run.name}: skipped, it goes on; repeat the command when it has ended")
        elif is_sent(run):
            print(f"{run.name}: sent before")
        else:
            send(run)
            print(f"{run.name}: sent")


def _chosen(names: list[Path], root: Path | None) -> list[Path]:
    if not names:
        mirrored = sorted(path.parent for path in (find_root(root) / RUNS).glob(f"*/{MIRRORED}"))
        return [run for run in mirrored if (run / METRICS).is_file()]
    runs = [find_run(name, root) for name in names]
    for run in runs:
        if not (run / METRICS).is_file():
            raise ConfigurationError(
                f"is not the directory of a run (it has no {METRICS})",
                where=str(run),
                fix="choose one below runs/",
            )
    return runs
