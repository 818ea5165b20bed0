"""`ups join CONFIG`."""

import argparse

from ups.artifacts import Store
from ups.commands.arguments import add_configuration, add_root, add_stage
from ups.commands.tables import print_progress
from ups.config import load_configuration
from ups.config.load import parse_overrides
from ups.pipeline.device import resolve
from ups.pipeline.join import join
from ups.pipeline.run import find_root, overrides_by_seed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Take part, as one more machine, in a run with execution.nodes: with the arguments of the command or flow on the "
        "first machine, and the same root on a shared file system. It ends when the last stage with ranks is sealed."
    )
    add_configuration(parser)
    add_root(parser)
    add_stage(parser, "--until", default=None, help="as on the first machine")


def execute(options: argparse.Namespace) -> None:
    """Join the run of every seed."""
    for chosen in overrides_by_seed(options.config, parse_overrides(options.assignments)):
        configuration = resolve(load_configuration(options.config, chosen))
        join(configuration, Store(find_root(options.root)), options.until, on_line=print_progress)
