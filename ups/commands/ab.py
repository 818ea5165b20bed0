"""`ups ab BASELINE OPTIMISED`."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from ups.commands.arguments import add_overrides, add_root, count
from ups.commands.tables import comparison_table, print_progress, show
from ups.config.load import parse_overrides
from ups.pipeline.ab_gates import Gates, judged, require_passed
from ups.pipeline.comparison import COMPARED, Arm, arms_of, name_of, train, turns
from ups.pipeline.device import resolve


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Train two configurations on the same data with the same seeds, in turns, and compare: speed, time to the baseline's "
        "error, decoded validation error, memory. Ratios are of pairs with one seed, with 95 % intervals over the seeds; the exit "
        "code is 8 where the optimised one does not pass the gates. --set is for both. Nothing else should be running. A comparison that was "
        "interrupted goes on where it was."
    )
    parser.add_argument("baseline", metavar="BASELINE", type=Path, help="YAML file")
    parser.add_argument("optimised", metavar="OPTIMISED", type=Path, help="YAML file")
    add_overrides(parser)
    parser.add_argument("--seeds", type=_several, default=3, help="trainings of each, at least 2 (default 3)")
    parser.add_argument(
        "--stage", choices=COMPARED, default="operator", help="that is trained (default operator)"
    )
    parser.add_argument(
        "--leave-one-out",
        action="store_true",
        help="also the optimised configuration without each of its differences",
    )
    gates = Gates()
    parser.add_argument(
        "--speed",
        type=float,
        default=gates.speed,
        help=f"gate: more than this many times as fast to the baseline's error (default {gates.speed:g})",
    )
    parser.add_argument(
        "--error",
        type=float,
        default=gates.error,
        help=f"gate: larger error by at most this part (default {gates.error:g})",
    )
    parser.add_argument(
        "--memory",
        type=float,
        default=gates.memory,
        help=f"gate: at most this times as much (default {gates.memory:g})",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_root(parser)


def execute(options: argparse.Namespace) -> None:
    """Train all arms, print the table.

    Raises:
        ComparisonError: a gate is not passed.
    """
    overrides = parse_overrides(options.assignments)
    named = (Arm("", str(path), overrides) for path in (options.baseline, options.optimised))
    arms = arms_of(*named, leave_one_out=options.leave_one_out)
    for arm in arms:
        resolve(arm.load())  # what this machine cannot do is said before the first training
    comparison, order = name_of(arms), list(turns(arms, options.seeds))
    trained = []
    for number, (arm, seed) in enumerate(order, 1):
        print_progress(f"training {number} of {len(order)}: {arm.name}, seed {seed}")
        trained.append(train(arm, seed, options.stage, comparison, options.root, on_line=print_progress))
    records = judged(trained, Gates(options.speed, options.error, options.memory))
    if options.json:
        print(json.dumps(records, indent=2, default=asdict))
    else:
        show(comparison_table(records, options.stage))
    require_passed(records, where=str(options.optimised))


def _several(text: str) -> int:
    number = count(text)
    if number < 2:
        raise argparse.ArgumentTypeError("one seed has no interval: at least 2")
    return number
