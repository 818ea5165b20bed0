"""`ups ab BASELINE OPTIMISED`."""

import argparse
import json
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from rich.table import Column, Table
from rich.text import Text

from ups.commands.arguments import add_root, count
from ups.commands.tables import print_progress, show
from ups.config.load import parse_overrides
from ups.pipeline.comparison import COMPARED, Arm, arms_of, name_of, train, turns
from ups.pipeline.device import resolve
from ups.pipeline.verdict import Gates, judged, require_passed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Train two configurations on the same data with the same seeds, in turns, and compare: speed, time to the baseline's "
        "error, decoded validation error, memory. Ratios are of pairs with one seed, with 95 % intervals over the seeds; the exit "
        "code is 8 where the optimised one does not pass the gates. Nothing else should be running. A comparison that was "
        "interrupted goes on where it was."
    )
    parser.add_argument("baseline", metavar="BASELINE", type=Path, help="YAML file")
    parser.add_argument("optimised", metavar="OPTIMISED", type=Path, help="YAML file")
    parser.add_argument(
        "--set",
        dest="assignments",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="override a value of both; repeatable",
    )
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
        print(json.dumps([_plain(record) for record in records], indent=2))
    else:
        show(table_of(records, options.stage))
    require_passed(records, where=str(options.optimised))


def table_of(records: list[dict[str, Any]], stage: str) -> Table:
    """A row per arm."""
    seeds = ", ".join(map(str, records[0]["seeds"]))
    heads = (
        "s/step",
        "steps a second / baseline's",
        "s in all",
        "s to the baseline's error",
        "speed to it / baseline's",
        "validation error",
        "error / baseline's",
        "GB",
        "memory / baseline's",
        "gates",
    )
    table = Table(
        "training",
        *(Column(head, justify="right") for head in heads),
        box=None,
        pad_edge=False,
        title=f"{stage}, seeds {seeds}; ratios of pairs with 95 % intervals",
        title_justify="left",
    )
    for record in records:
        reached = record["seconds_to_target"]
        verdict = "" if "failed" not in record else "failed" if record["failed"] else "passed"
        table.add_row(
            record["arm"],
            f"{record['seconds_per_step']:.3g}",
            str(record.get("step_speed", "")),
            f"{record['seconds']:.3g}",
            "never" if reached is None else f"{reached:.3g}",
            str(record.get("speed") or ""),
            f"{record['error']:.3g}",
            str(record.get("error_ratio") or ""),
            _number(record["memory_gigabytes"], ".2g"),
            _number(record.get("memory_ratio"), ".2f"),
            Text(verdict, style={"failed": "red", "passed": "green"}.get(verdict, "")),
        )
    return table


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _plain(record: dict[str, Any]) -> dict[str, Any]:
    return {
        key: asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
        for key, value in record.items()
    }


def _several(text: str) -> int:
    number = count(text)
    if number < 2:
        raise argparse.ArgumentTypeError("one seed has no interval: at least 2")
    return number
