"""Where the time of a training step goes.

A short training as the configuration has it gives the time of a step. A second one, under torch's profiler, says what a step
consists of; it is neither captured nor compiled, for a replayed graph and a fused kernel do not tell their operators.

FLOPs are those of matrix products, by their shapes. Beside the step stands how fast it could be at best, see `ups.benchmarks.floor`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile

from ups.artifacts.files import read_records
from ups.benchmarks.floor import bytes_moved, floor_of
from ups.benchmarks.parts import marked_networks, microseconds_of, parts_of
from ups.benchmarks.stages import run_stage, short_training
from ups.config import Configuration
from ups.errors import ConfigurationError
from ups.runtime.ranks import device_name
from ups.training.step import PROFILED

Record = dict[str, Any]
_PLAIN = {"execution.cuda_graphs": False, "execution.compile": False}
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
    events, steps = profiled_steps(
        configuration, stage, directory / "profiled", inputs, trace=Path(request["trace"])
    )
    device = torch.device(configuration.execution.device)
    on_device = device.type == "cuda"
    operators = operators_of(events, steps, on_device=on_device)
    gigaflop = sum(record["gigaflop_per_step"] for record in operators)
    kernels = sum(record["kernels_per_step"] for record in operators)
    seconds = paces[-1]["seconds_per_step"]
    moved = bytes_moved(max((directory / "timed" / "checkpoints").glob("step-*")))
    floor = floor_of(1e9 * gigaflop, moved, kernels, configuration.execution)
    binding, shortest = floor.binding
    return [
        {
            "measure": "step",
            "stage": stage,
            "device": device_name(device),
            "milliseconds_per_step": 1e3 * seconds,
            "data_wait_fraction": paces[-1]["data_wait_fraction"],
            "operators": sum(record["calls_per_step"] for record in operators),
            "kernels": kernels,
            "gigaflop": gigaflop,
            "gigaflop_per_second": gigaflop / seconds,
            "of_best_product": floor.products / seconds,
            "megabytes_moved": moved / 1e6,
            "floor_milliseconds": 1e3 * shortest,
            "floor_is": binding,
            "floor_of_matrix_products": 1e3 * floor.products,
            "floor_of_memory": 1e3 * floor.memory,
            "floor_of_launches": None if floor.launches is None else 1e3 * floor.launches,
        },
        *parts_of(events, steps, microseconds_of(device.type)),
        *sorted(operators, key=lambda record: -record["milliseconds_per_step"])[:_DEAREST],
    ]


def profiled_steps(
    configuration: Configuration,
    stage: str,
    work: Path,
    inputs: dict[str, Path],
    *,
    trace: Path | None = None,
) -> tuple[list[FunctionEvent], list[FunctionEvent]]:
    """All events of a short training that is neither captured nor compiled, and those of them that are its later steps.

    trace: a file to write them to.
    """
    plain = short_training(configuration, stage, _PROFILED_STEPS, _PLAIN)
    activities = [ProfilerActivity.CPU]
    if configuration.execution.device == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with marked_networks(), profile(activities=activities, with_flops=True) as profiler:
        run_stage(stage, plain, work, inputs)
    if trace is not None:
        profiler.export_chrome_trace(str(trace))
    events = list(profiler.events() or [])
    steps = [event for event in events if event.name == PROFILED and event.device_type.name == "CPU"]
    return events, steps[len(steps) // 2 :]


def operators_of(
    events: Sequence[FunctionEvent], steps: Sequence[FunctionEvent], *, on_device: bool
) -> list[Record]:
    """Per kind of operator within the steps, by the time in itself: of its kernels on a GPU, of the host otherwise.

    On a CPU an operator that calls no other is a kernel.
    """
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
        kernels = len(event.kernels) if on_device else not event.cpu_children
        record["kernels_per_step"] += kernels / len(spans)
        if event.name in _PRODUCTS:
            record["gigaflop_per_step"] += (event.flops or 0) / 1e9 / len(spans)
    return list(found.values())
