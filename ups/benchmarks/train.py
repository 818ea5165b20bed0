"""Seconds of a training step of the operator, with each optimisation and without it, measured in turns."""

import logging
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ups.artifacts.files import read_records
from ups.benchmarks.stages import WINDOWS, run_stage, short_training
from ups.config import Configuration

log = logging.getLogger(__name__)

Record = dict[str, Any]
_PLAIN = {"cuda_graphs": False, "compile": False, "precision": "fp32"}
_TURNS = 2


def variants(device: str) -> dict[str, dict[str, Any]]:
    """Settings of `execution` by name: plain, the whole stack, and the stack without each of its parts."""
    if device == "cpu":
        return {"plain": _PLAIN, "compiled": _PLAIN | {"compile": True}}
    stack = {"cuda_graphs": True, "compile": True, "precision": "tf32"}
    return {
        "plain": _PLAIN,
        "whole stack": stack,
        **{f"stack without {key}": stack | {key: _PLAIN[key]} for key in stack},
        **{f"{key} alone": _PLAIN | {key: value} for key, value in stack.items()},
        "stack in bf16": stack | {"precision": "bf16"},
    }


def measure_training(request: Mapping[str, Any], directory: Path) -> list[Record]:
    """The trainings that a request describes: {"configuration", "inputs" by stage, "steps"}."""
    configuration = Configuration.model_validate(request["configuration"])
    inputs = {stage: Path(path) for stage, path in request["inputs"].items()}
    steps: int = request["steps"]
    chosen = {
        name: short_training(configuration, "operator", steps, execution)
        for name, execution in variants(configuration.execution.device).items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in chosen}
    errors: dict[str, float] = {}
    for turn in range(_TURNS):
        for place, (name, changed) in enumerate(chosen.items()):
            log.info("%s, %d steps", name, steps)
            torch.compiler.reset()  # a process may compile one function for so many networks and no more
            output = run_stage("operator", changed, directory / f"{turn}-{place}", inputs)
            records = read_records(output / "logs" / "metrics.jsonl")
            paces = [record["seconds_per_step"] for record in records if "seconds_per_step" in record]
            seconds[name].append(statistics.median(paces[-WINDOWS // 2 :]))
            errors[name] = next(
                record["validation_relative_l2"]
                for record in reversed(records)
                if "validation_relative_l2" in record
            )
    plain = statistics.median(seconds["plain"])
    return [
        {
            "measure": "train",
            "what": name,
            "milliseconds_per_step": 1e3 * statistics.median(taken),
            "speed_over_plain": plain / statistics.median(taken),
            "validation_relative_l2": errors[name],
        }
        for name, taken in seconds.items()
    ]
