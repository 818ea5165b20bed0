"""`ups report RUN`."""

import argparse

from ups.commands.arguments import add_run
from ups.pipeline.run import find_run, write_report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)


def execute(options: argparse.Namespace) -> None:
    """Write report.html from what the run's directory and its artifacts hold."""
    run = find_run(options.run, options.root)
    write_report(run, on_line=print)
    print(run / "report.html")
