"""Where the time of a training step goes.

A short training as the configuration has it gives the time of a step. A second one, under torch's profiler, says what a step
consists of; it is neither captured nor compiled, for a replayed graph and a fused kernel do not tell their operators.

FLOPs are those of matrix products, by their shapes. Beside them stands the speed of one large matrix product,
measured on the same device in the same precision: no network of small matrices reaches it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile

from ups.artifacts.files import read_records
from ups.benchmarks.stages import run_stage, short_training
from ups.config import Configuration
from ups.errors import ConfigurationError
from ups.runtime.device_speed import product_flops
from ups.runtime.ranks import device_name
from ups.training.step import PROFILED

Record = dict[str, Any]
_PLAIN = {"cuda_graphs": False, "compile": False}
_PROFILED_STEPS = 12  # of which the second half counts
_DEAREST = 10
_PRODUCTS = {"aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"}


def measure_profile(request: Mapping[str, Any], directory: Path) -> list[Record]:
    """The profile that a request describes: {"stage", "configuration", "inputs" by stage, "steps", "trace": a file to write}.

    Raises:
        ConfigurationError: the stage trains nothing.
    """
    configuration = Configuration.model_validate(request["configuration"])
    stage: str = request["stage"]
    inputs = {name: Path(path) for name, path in request["inputs"].items()}
    timed = short_training(configuration, stage, request["steps"], {})
    output = run_stage(stage, timed, directory / "timed", inputs)
    paces = [
        record for record in read_records(output / "logs" / "metrics.jsonl") if "seconds_per_step" in record
    ]
    if not paces:
        raise ConfigurationError(
            "it has nothing to train", where=f"training.{stage}", fix="profile another stage"
        )
    plain = short_training(configuration, stage, _PROFILED_STEPS, _PLAIN)
    device = torch.device(configuration.execution.device)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with profile(activities=activities, with_flops=True) as profiler:
        run_stage(stage, plain, directory / "profiled", inputs)
    profiler.export_chrome_trace(request["trace"])
    events = profiler.events() or []
    steps = [event for event in events if event.name == PROFILED and event.device_type.name == "CPU"]
    steps = steps[len(steps) // 2 :]
    operators = operators_of(events, steps, on_device=device.type == "cuda")
    flops = sum(record["gigaflop_per_step"] for record in operators)
    seconds = paces[-1]["seconds_per_step"]
    best = product_flops(device, configuration.execution.precision)
    return [
        {
            "measure": "step",
            "stage": stage,
            "device": device_name(device),
            "milliseconds_per_step": 1e3 * seconds,
            "data_wait_fraction": paces[-1]["data_wait_fraction"],
            "operators": sum(record["calls_per_step"] for record in operators),
            "kernels": sum(record["kernels_per_step"] for record in operators)
            if device.type == "cuda"
            else None,
            "gigaflop": flops,
            "gigaflop_per_second": flops / seconds,
            "best_product_gigaflop_per_second": best / 1e9,
            "of_best_product": 1e9 * flops / seconds / best,
        },
        *sorted(operators, key=lambda record: -record["milliseconds_per_step"])[:_DEAREST],
    ]


def operators_of(
    events: Sequence[FunctionEvent], steps: Sequence[FunctionEvent], *, on_device: bool
) -> list[Record]:
    """Per kind of operator within the steps, by the time in itself: of its kernels on a GPU, of the host otherwise."""
    spans = [(step.time_range.start, step.time_range.end) for step in steps]
    found: dict[str, Record] = {}
    for event in events:
        if event.device_type.name != "CPU" or not event.name.startswith("aten::"):
            continue
        if not any(start <= event.time_range.start < end for start, end in spans):
            continue
        record = found.setdefault(
            event.name,
            {
                "measure": "operator",
                "what": event.name.removeprefix("aten::"),
                "milliseconds_per_step": 0.0,
                "calls_per_step": 0.0,
                "kernels_per_step": 0.0,
                "gigaflop_per_step": 0.0,
            },
        )
        microseconds = event.self_device_time_total if on_device else event.self_cpu_time_total
        record["milliseconds_per_step"] += microseconds / 1e3 / len(spans)
        record["calls_per_step"] += 1 / len(spans)
        record["kernels_per_step"] += len(event.kernels) / len(spans)
        if event.name in _PRODUCTS:
            record["gigaflop_per_step"] += (event.flops or 0) / 1e9 / len(spans)
    return list(found.values())
