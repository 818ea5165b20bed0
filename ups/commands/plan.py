"""`ups plan CONFIG`."""

import argparse
import json
from typing import Any

from rich.table import Column, Table
from rich.text import Text

from ups.artifacts import Store
from ups.commands.arguments import add_configuration, add_root, read_configuration
from ups.commands.predictions import predictions_table, total
from ups.commands.tables import plan_table, print_progress, show
from ups.config.load import parse_overrides
from ups.config.schema import TRAINING_STAGES
from ups.pipeline.plan import make_plan
from ups.pipeline.probe import Prediction, probe, probe_batches
from ups.pipeline.run import find_root


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Show per stage HIT or MISS, why, and predicted bytes. With --probe also what is to be built is tried with few "
        "trajectories and few steps, two or three minutes, and time and memory of the whole are predicted from that, and its cost where "
        "resources.hourly_rate_usd is given."
    )
    add_configuration(parser)
    add_root(parser)
    parser.add_argument("--probe", action="store_true", help="measure, and predict seconds and memory")
    parser.add_argument(
        "--batch-size-of",
        choices=TRAINING_STAGES,
        metavar="STAGE",
        help="double the batch of a training as long as samples a second grow by a tenth and memory lasts",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def execute(options: argparse.Namespace) -> None:
    """Print the plan; nothing is built or changed but for the probes, which leave nothing."""
    configuration, root = read_configuration(options), find_root(options.root)
    overrides = parse_overrides(options.assignments)
    plan = make_plan(configuration, Store(root))
    predictions: dict[str, Prediction] = {}
    if options.probe:
        predictions = probe(options.config, overrides, configuration, plan, root, on_line=print_progress)
    batches: list[dict[str, Any]] = []
    if options.batch_size_of:
        batches = probe_batches(
            options.config, overrides, configuration, options.batch_size_of, root, on_line=print_progress
        )
    if options.json:
        rows = [
            stage.to_json() | (predictions[stage.name].to_json() if stage.name in predictions else {})
            for stage in plan
        ]
        print(json.dumps(batches or rows, indent=2))
        return
    show(plan_table(plan))
    if predictions:
        show(predictions_table(predictions))
        print(total(predictions, configuration))
    elif options.probe:
        print("nothing is to be built")
    if batches:
        show(_batches_table(batches))


def _batches_table(batches: list[dict[str, Any]]) -> Table:
    heads = ("batch_size", "samples/s", "GB memory")
    table = Table(
        batches[0]["stage"], *(Column(head, justify="right") for head in heads), "", box=None, pad_edge=False
    )
    for record in batches:
        memory = record.get("memory_gigabytes")
        table.add_row(
            "",
            str(record["batch_size"]),
            f"{record['samples_per_second']:.3g}" if "samples_per_second" in record else "",
            "" if memory is None else f"{memory:.2g}",
            Text(record.get("note", "")),
        )
    return table
