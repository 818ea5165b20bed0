"""Seconds of a training step of the operator, with each optimisation and without it, measured in turns; and what the step is spent on."""

import logging
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ups.artifacts.files import read_records
from ups.benchmarks.parts import microseconds_of, parts_of
from ups.benchmarks.profile import profiled_steps
from ups.benchmarks.stages import WINDOWS, run_stage, short_training
from ups.config import Configuration
from ups.config.optimizer import OptimizerSettings
from ups.config.training import OPTIMIZERS
from ups.kinds import kind_of

log = logging.getLogger(__name__)

Record = dict[str, Any]
Changes = dict[str, Any]
"""Other values of dotted keys."""
_PLAIN: Changes = {
    "execution.cuda_graphs": False,
    "execution.compile": False,
    "execution.precision": "fp32",
}
_STACK: Changes = {"execution.cuda_graphs": True, "execution.compile": True, "execution.precision": "tf32"}
_TURNS = 2


def variants(configuration: Configuration) -> dict[str, Changes]:
    """What is trained, by name; the first is what the others are compared with.

    On a GPU plain, the whole stack, and the stack without each of its parts. On a CPU the configuration as it is, and with each of
    the settings changed that make its steps faster, slower or smaller there. Left out is bf16, which CPUs without units for it emulate,
    twenty times slower.
    """
    if configuration.execution.device == "cpu":
        return {"as configured": {}, **_changed_on_cpu(configuration)}
    return {
        "plain": _PLAIN,
        "whole stack": _STACK,
        **{f"stack without {_name(key)}": _STACK | {key: _PLAIN[key]} for key in _STACK},
        **{f"{_name(key)} alone": _PLAIN | {key: value} for key, value in _STACK.items()},
        "stack in bf16": _STACK | {"execution.precision": "bf16"},
    }


def _changed_on_cpu(configuration: Configuration) -> dict[str, Changes]:
    """One setting each."""
    execution, operator = configuration.execution, configuration.training.operator
    parts = 1 if operator.accumulation > 1 else 2
    changes: dict[str, Any] = {
        "execution.threads": 1 if execution.threads > 1 else 2,
        "execution.activation_checkpointing": 0 if execution.activation_checkpointing else 1,
        "training.operator.accumulation": parts,
    }
    if operator.batch_size % parts:
        del changes["training.operator.accumulation"]
    named = {f"{_name(key)}: {value}": {key: value} for key, value in changes.items()}
    for value in (False, True, "blocks"):
        if value != execution.compile:
            named[f"compile: {str(value).lower()}"] = {"execution.compile": value}
    for kind, section in OPTIMIZERS.items():
        assert issubclass(section, OptimizerSettings)
        if kind != kind_of(operator.optimizer) and not section.library:  # which may not be installed
            named[f"optimizer: {kind}"] = {"training.operator.optimizer": {"kind": kind}}
    return named


def _name(key: str) -> str:
    return key.rpartition(".")[2]


def settled_seconds(artifact: Path) -> float:
    """Of a step of a short training, without its first windows."""
    records = read_records(artifact / "logs" / "metrics.jsonl")
    paces = [record["seconds_per_step"] for record in records if "seconds_per_step" in record]
    return statistics.median(paces[-WINDOWS // 2 :])


def measure_training(request: Mapping[str, Any], directory: Path) -> list[Record]:
    """The trainings that a request describes: {"configuration", "inputs" by stage, "steps"}."""
    configuration = Configuration.model_validate(request["configuration"])
    inputs = {stage: Path(path) for stage, path in request["inputs"].items()}
    steps: int = request["steps"]
    chosen = {
        name: short_training(configuration, "operator", steps, changes)
        for name, changes in variants(configuration).items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in chosen}
    last: dict[str, Record] = {}
    for turn in range(_TURNS):
        for place, (name, changed) in enumerate(chosen.items()):
            log.info("%s, %d steps", name, steps)
            torch.compiler.reset()  # a process may compile one function for so many networks and no more
            output = run_stage("operator", changed, directory / f"{turn}-{place}", inputs)
            records = read_records(output / "logs" / "metrics.jsonl")
            seconds[name].append(settled_seconds(output))
            last[name] = {key: value for record in records for key, value in record.items()}
    on_device = configuration.execution.device == "cuda"
    reference = statistics.median(seconds[next(iter(chosen))])
    rows = [
        {
            "measure": "train",
            "what": name,
            "milliseconds_per_step": 1e3 * statistics.median(taken),
            "speed": reference / statistics.median(taken),
            "validation_relative_l2": last[name]["validation_relative_l2"],
            # The peak of a process on a CPU is that of all its trainings.
            "peak_memory_gigabytes": last[name]["peak_memory_gigabytes"] if on_device else None,
        }
        for name, taken in seconds.items()
    ]
    events, profiled = profiled_steps(configuration, "operator", directory / "profiled", inputs)
    return rows + parts_of(events, profiled, microseconds_of(configuration.execution.device))
