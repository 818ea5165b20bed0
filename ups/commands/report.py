"""`ups report RUN`."""

import argparse
from pathlib import Path

from ups.pipeline.run import write_report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", type=Path, help="directory below runs/")


def execute(options: argparse.Namespace) -> None:
    """Write report.html from what the run's directory and its artifacts hold."""
    write_report(options.run.absolute(), on_line=print)
    print(options.run.absolute() / "report.html")
