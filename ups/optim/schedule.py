"""Learning rate as a pure function of the step: nothing to save, nothing to restore."""

import math


def learning_rate(step: int, *, steps: int, warmup: int, peak: float, final: float) -> float:
    """Linear warm-up to `peak`, then a half cosine to `final` (Loshchilov and Hutter 2017, eq. 5).

    `step` counts from 0; the first step already moves (peak / warmup), the last is at `final`.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - 1 - warmup)
    return final + (peak - final) * 0.5 * (1 + math.cos(math.pi * progress))
