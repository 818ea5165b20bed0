"""What a training step's time is for: which network, the rest of the loss, the optimiser, the averages.

A backward operator belongs to where its forward operator was: autograd numbers both alike.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from operator import attrgetter
from typing import Any

from torch import nn
from torch.autograd.profiler_util import FunctionEvent
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.profiler import record_function

Record = dict[str, Any]
LOSS, OPTIMISER, AVERAGES, REST = "loss, and decoding for it", "optimiser", "averages", "gradients"
_NETWORKS = "ups.models."
_MARK = "network "
_BACKWARD = "autograd::engine::evaluate_function"
_OPTIMISER = "Optimizer.step#"
_AVERAGES = "aten::_foreach_lerp_"


@contextmanager
def marked_networks() -> Iterator[None]:
    """Within, every outermost call of a network of `ups.models` is marked in a profile, by the name of its class."""
    open_calls: list[record_function | None] = []

    def enter(module: nn.Module, _: Any) -> None:
        if type(module).__module__.startswith(_NETWORKS):
            mark = None if open_calls else record_function(_MARK + type(module).__name__)
            if mark is not None:
                mark.__enter__()
            open_calls.append(mark)

    def leave(module: nn.Module, *_: Any) -> None:
        if type(module).__module__.startswith(_NETWORKS) and (mark := open_calls.pop()) is not None:
            mark.__exit__(None, None, None)

    hooks = [register_module_forward_pre_hook(enter), register_module_forward_hook(leave, always_call=True)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def microseconds_of(device: str) -> Callable[[FunctionEvent], float]:
    """Of an event with all that it calls: of its kernels on a GPU, of the host otherwise."""
    return attrgetter("device_time_total" if device == "cuda" else "cpu_time_total")


def parts_of(
    events: Sequence[FunctionEvent],
    steps: Sequence[FunctionEvent],
    microseconds: Callable[[FunctionEvent], float],
) -> list[Record]:
    """Milliseconds of each part of the steps, and its share of them all.

    microseconds: of an event with all that it calls.
    """
    taken: dict[str, float] = {}
    for step in steps:
        inside = [event for event in events if _within(event, step)]
        outermost = sorted((e for e in inside if e.cpu_parent in {None, step}), key=_start)
        last_backward = max((_start(e) for e in outermost if e.name.startswith(_BACKWARD)), default=0)
        part_of_number: dict[int, str] = {}
        for event in outermost:
            if event.name.startswith(_BACKWARD):
                part = part_of_number.get(event.sequence_nr, REST)
            elif event.name.startswith(_MARK):
                part = event.name.removeprefix(_MARK).lstrip("_")
            elif _start(event) < last_backward:
                part = LOSS
            elif event.name.startswith(_OPTIMISER):
                part = OPTIMISER
            else:
                part = AVERAGES if event.name == _AVERAGES else REST
            if not event.name.startswith(_BACKWARD):
                # An operator without a derivative carries the number of the next one that has one, which overwrites it.
                part_of_number |= dict.fromkeys((each.sequence_nr for each in _with_descendants(event)), part)
            taken[part] = taken.get(part, 0.0) + microseconds(event) / 1e3 / len(steps)
    whole = sum(taken.values())
    return [
        {
            "measure": "part",
            "what": part,
            "milliseconds_per_step": milliseconds,
            "of_step": milliseconds / whole,
        }
        for part, milliseconds in sorted(taken.items(), key=lambda item: -item[1])
    ]


def _within(event: FunctionEvent, step: FunctionEvent) -> bool:
    inside = step.time_range.start <= event.time_range.start < step.time_range.end
    return inside and event is not step and event.device_type.name == "CPU"


def _start(event: FunctionEvent) -> float:
    return event.time_range.start


def _with_descendants(event: FunctionEvent) -> Iterator[FunctionEvent]:
    yield event
    for child in event.cpu_children:
        yield from _with_descendants(child)
