"""`ups plan CONFIG`."""

import argparse
import json

from ups.artifacts import Store
from ups.commands.arguments import add_configuration, add_root, read_configuration
from ups.commands.tables import plan_table, show
from ups.pipeline.plan import make_plan
from ups.pipeline.run import find_root


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_configuration(parser)
    add_root(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def execute(options: argparse.Namespace) -> None:
    """Print the plan; nothing is built or changed."""
    plan = make_plan(read_configuration(options), Store(find_root(options.root)))
    if options.json:
        print(json.dumps([stage.to_json() for stage in plan], indent=2))
    else:
        show(plan_table(plan))
