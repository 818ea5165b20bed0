"""Learning rate as a pure function of the step: nothing to save, nothing to restore.

Shapes of the schedule are one file per kind, with `shape(progress, ...)`: 1 at progress 0, 0 at 1. Settings have the same
names in `ups/config/schedules`.
"""

from collections.abc import Mapping
from typing import Any

from ups.kinds import module_of


def learning_rate(
    step: int, *, steps: int, warmup: int, peak: float, final: float, schedule: Mapping[str, Any]
) -> float:
    """Linear warm-up to `peak`, then down to `final` in the shape of a schedule.

    Args:
        step: counts from 0; the first step already moves (peak / warmup), the last is at `final`.
        schedule: {"kind": ..., and its settings}, see `ups.training.schedules`.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - 1 - warmup)
    settings = dict(schedule)
    shape = module_of("ups.training.schedules", settings.pop("kind")).shape
    return final + (peak - final) * shape(progress, **settings)
