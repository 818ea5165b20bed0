"""`ups stage NAME CONFIG`."""

import argparse

from ups.commands.arguments import add_configuration, add_root, add_stage
from ups.commands.run import follow
from ups.config.load import parse_overrides
from ups.config.schema import STAGES
from ups.pipeline.run import Run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_stage(parser, "stage", metavar="NAME", help=", ".join(STAGES))
    add_configuration(parser)
    add_root(parser)


def execute(options: argparse.Namespace) -> None:
    """Bring one stage and what it needs to sealed artifacts."""
    overrides = parse_overrides(options.assignments)
    follow(Run.start(options.config, overrides, root=options.root, until=options.stage), options.stage)
