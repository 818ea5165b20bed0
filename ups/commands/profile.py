"""`ups profile STAGE CONFIG`."""

import argparse
import json
from pathlib import Path
from typing import Any

from rich.table import Table

from ups.commands.arguments import add_configuration, add_root, count
from ups.commands.measured_run import in_one_process, measured, run_until
from ups.commands.tables import show
from ups.config.schema import STAGES, TRAINING_STAGES
from ups.errors import ConfigurationError
from ups.pipeline.run import find_root


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Time the training steps of a stage, beside how fast they could be at best here, and say what a step consists of: networks, "
        "loss, optimiser, the ten most expensive operators, FLOPs, the wait for data; and a trace for https://ui.perfetto.dev. The stages "
        "before it are built, if they are not yet. Nothing else should be running."
    )
    parser.add_argument("stage", metavar="STAGE", choices=TRAINING_STAGES, help=", ".join(TRAINING_STAGES))
    add_configuration(parser)
    parser.add_argument("--steps", type=count, default=40, help="that are timed (default 40)")
    parser.add_argument(
        "--trace", type=Path, help="file to write the trace to (default: profile-STAGE.json in the root)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_root(parser)


def execute(options: argparse.Namespace) -> None:
    """Build what the stage reads, measure in a process of its own, and print the page."""
    configuration = in_one_process(options)
    if not getattr(configuration.training, options.stage).steps:
        raise ConfigurationError(
            "0, so this stage trains nothing",
            where=f"training.{options.stage}.steps",
            fix="profile another stage",
        )
    inputs = STAGES[options.stage].inputs
    run = run_until(options, max(inputs, key=list(STAGES).index), {})
    trace = options.trace or find_root(options.root) / f"profile-{options.stage}.json"
    records = measured(
        options,
        run.configuration,
        {
            "subject": "profile",
            "stage": options.stage,
            "inputs": {name: str(run.built[name].artifact.path) for name in inputs},
            "steps": options.steps,
            "trace": str(trace.absolute()),
        },
    )
    if options.json:
        print(json.dumps(records, indent=2))
        return
    step = records[0]
    print(_text(step, run.configuration.execution.threads))
    show(_floor(step))
    print()
    show(_parts([record for record in records if record["measure"] == "part"]))
    print()
    operators = [record for record in records if record["measure"] == "operator"]
    show(_table(operators, step["milliseconds_per_step"]))
    print(f"trace: {trace} (open it at https://ui.perfetto.dev)")


def _text(step: dict[str, Any], threads: int) -> str:
    place = f"cpu, {threads} thread(s)" if step["device"] == "cpu" else step["device"]
    taken, shortest = step["milliseconds_per_step"], step["floor_milliseconds"]
    return (
        f"{step['stage']} on {place}: {taken:.3g} ms a step as configured, {step['data_wait_fraction']:.1%} of it waiting for data\n"
        f"{step['gigaflop_per_second']:.3g} GFLOP/s, {step['of_best_product']:.1%} of one large matrix product's\n"
        f"it cannot take less than {shortest:.3g} ms here, {shortest / taken:.1%} of that, bound by {step['floor_is']}\n"
    )


def _floor(step: dict[str, Any]) -> Table:
    """The three times of which a step takes at least the longest."""
    table = Table("at least", "ms per step", "for", box=None, pad_edge=False)
    operators = f"{step['kernels']:.0f} kernels of {step['operators']:.0f} operators"
    if step["floor_of_launches"] is None:
        operators += "; a compiled network has fewer, how many is not known"
    for what, milliseconds, reason in (
        ("matrix products", step["floor_of_matrix_products"], f"{step['gigaflop']:.3g} GFLOP"),
        (
            "memory",
            step["floor_of_memory"],
            f"{step['megabytes_moved']:.3g} MB of weights, gradients, averages and the optimiser's memory",
        ),
        ("launches", step["floor_of_launches"], operators),
    ):
        table.add_row(what, "" if milliseconds is None else f"{milliseconds:.3g}", reason)
    return table


def _parts(parts: list[dict[str, Any]]) -> Table:
    table = Table("a step is spent on", "ms per step", "of a step", box=None, pad_edge=False)
    for record in parts:
        table.add_row(record["what"], f"{record['milliseconds_per_step']:.3g}", f"{record['of_step']:.1%}")
    return table


def _table(operators: list[dict[str, Any]], milliseconds: float) -> Table:
    table = Table(
        "most expensive operators", "ms per step", "of a step", "calls", "GFLOP", box=None, pad_edge=False
    )
    for record in operators:
        taken = record["milliseconds_per_step"]
        table.add_row(
            record["what"],
            f"{taken:.3g}",
            f"{taken / milliseconds:.0%}",
            f"{record['calls_per_step']:.0f}",
            f"{record['gigaflop_per_step']:.3g}",
        )
    return table
