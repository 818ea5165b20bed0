"""`ups doctor [CONFIG]`."""

import argparse
import json

from ups.commands.arguments import add_configuration, add_root
from ups.commands.tables import findings_table, show
from ups.config.load import load_configuration, parse_overrides
from ups.pipeline.readiness.checks import free_bytes, of_space, require_no_problem
from ups.pipeline.readiness.doctor import examine
from ups.pipeline.readiness.preflight import of_run
from ups.pipeline.run import find_root


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Check this machine: versions against the pins, torch and the GPU's driver, the Prefect server and its clock, the root's disk and "
        "locks, limits of processes, git. With CONFIG also what that asks for. Nothing is changed. Exit code 3 where something is missing."
    )
    add_configuration(parser, nargs="?")
    add_root(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def execute(options: argparse.Namespace) -> None:
    """Print what was found.

    Raises:
        PreflightError: a problem is among it.
    """
    root = find_root(options.root)
    if options.config is None:
        findings = [*examine(root), *of_space(free_bytes(root), {})]
    else:
        configuration = load_configuration(options.config, parse_overrides(options.assignments))
        findings = examine(root, device=configuration.execution.device)
        findings += of_run(configuration, root)[0]
    if options.json:
        print(json.dumps([finding.to_json() for finding in findings], indent=2))
    else:
        show(findings_table(findings))
    require_no_problem(findings, where="this machine")
