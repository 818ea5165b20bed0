"""`ups bench data|latents|train|peers|ablation|frontier|nightly`."""

import argparse
import json
from typing import Any

from rich.table import Column, Table

from ups.commands import frontier, nightly, race
from ups.commands.arguments import add_configuration, add_root, count
from ups.commands.measured_run import in_one_process, measured, run_until
from ups.commands.tables import print_progress, show
from ups.errors import ConfigurationError
from ups.pipeline.device import resolve_device
from ups.pipeline.run import find_root
from ups.pipeline.tool_process import run_tool

_LEAST_STEPS = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Speeds are ratios measured in one run against a named reference: absolute times of a shared "
        "machine say little. Nothing else should be running."
    )
    subjects = parser.add_subparsers(dest="subject", metavar="SUBJECT", required=True)
    data = subjects.add_parser("data", help="trajectories per second of the generators, and of a reference")
    data.add_argument("--seconds", type=float, default=20.0, help="per case, about (default 20)")
    data.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    latents = subjects.add_parser("latents", help="building and reading the latent cache, and the loaders")
    latents.add_argument(
        "--trajectories", type=count, default=512, help="in the cache that is measured (default 512)"
    )
    train = subjects.add_parser(
        "train", help="a training step of the operator, with each optimisation and without"
    )
    add_configuration(train)
    train.add_argument("--steps", type=count, default=100, help="of each training (default 100; at least 8)")
    train.add_argument("--json", action="store_true", help="print JSON")
    add_root(train)
    race.add_arguments(
        subjects.add_parser("peers", help="FNO, U-Net and others against the operator of a configuration")
    )
    race.add_ablation_arguments(
        subjects.add_parser("ablation", help="the operator of a configuration against itself with changes")
    )
    frontier.add_arguments(
        subjects.add_parser(
            "frontier", help="error against seconds, of a trained configuration and of our own solvers"
        )
    )
    nightly.add_arguments(
        subjects.add_parser("nightly", help="a fixed suite of all of these, against the nights before")
    )
    for subject in (data, latents):
        subject.add_argument("--threads", type=count, default=2, help="default 2")
        subject.add_argument("--json", action="store_true", help="print JSON")
        add_root(subject)


def execute(options: argparse.Namespace) -> None:
    """Measure in a process of its own and print the records."""
    if options.subject == "peers":
        race.execute(options)
        return
    if options.subject == "ablation":
        race.execute_ablation(options)
        return
    if options.subject == "frontier":
        frontier.execute(options)
        return
    if options.subject == "nightly":
        nightly.execute(options)
        return
    if options.subject == "train":
        _print(_training_records(options), as_json=options.json)
        return
    place = find_root(options.root) / "artifacts" / ".work"
    request: dict[str, Any] = {
        "subject": options.subject,
        "threads": options.threads,
        "directory": str(place),
    }
    if options.subject == "data":
        request |= {"seconds": options.seconds, "device": resolve_device(options.device, where="--device")}
    else:
        request |= {"trajectories": options.trajectories}
    records = run_tool(
        "ups.benchmarks",
        request,
        place=place,
        threads=options.threads,
        on_line=print_progress,
    )
    _print(records, as_json=options.json)


def _training_records(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Bring the latents of a configuration to a sealed artifact, and time the operator's training on them."""
    if options.steps < _LEAST_STEPS:
        raise ConfigurationError(
            f"{options.steps} steps are too few to tell how long one takes",
            where="--steps",
            fix=f"give at least {_LEAST_STEPS}",
        )
    in_one_process(options)
    run = run_until(options, "cache_encode", {})
    inputs = {stage: str(built.artifact.path) for stage, built in run.built.items()}
    return measured(
        options, run.configuration, {"subject": "train", "inputs": inputs, "steps": options.steps}
    )


def _print(records: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(records, indent=2))
        return
    for kind in dict.fromkeys(record.get("measure") for record in records):
        show(_table([record for record in records if record.get("measure") == kind]))
        print()


def _table(records: list[dict[str, Any]]) -> Table:
    """Records of one kind, a row each; what a record is of stands first."""
    names = dict.fromkeys(key for record in records for key, value in record.items() if value is not None)
    names.pop("measure", None)
    columns = sorted(names, key=lambda name: name not in {"case", "what"})
    table = Table(
        *(Column(name.replace("_", " "), no_wrap=True) for name in columns), box=None, pad_edge=False
    )
    for record in records:
        table.add_row(*(_cell(record.get(name)) for name in columns))
    return table


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
