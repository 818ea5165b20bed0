"""Which trainings of a sweep end early, by errors on the validation split at the same steps."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence

from ups.config.sweep import Median

Curve = Sequence[tuple[int, float]]
"""Steps, and the error of the validation there."""


def lowest(curve: Curve, step: int) -> float | None:
    """The lowest error up to a step; None where the training has not come as far."""
    if not curve or curve[-1][0] < step:
        return None
    return min((error for at, error in curve if at <= step), default=math.inf)


def is_behind(own: Curve, others: Iterable[Curve], rule: Median) -> bool:
    """Whether a training is to be ended at its newest validation.

    Lowest errors so far are compared, its own and the others' at the same step: one bad validation ends nothing.
    """
    step = own[-1][0]
    reached = [error for other in others if (error := lowest(other, step)) is not None]
    if step < rule.begin or len(reached) < rule.others:
        return False
    return min(error for _, error in own) > statistics.median(reached)


def promoted(errors: Mapping[str, float], factor: int) -> list[str]:
    """The best of one in `factor`, and at least one; of equals, the earlier."""
    return sorted(errors, key=lambda name: errors[name])[: max(1, len(errors) // factor)]
