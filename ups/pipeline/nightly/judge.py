"""What a night shows against the nights before: which measurements got worse, by how much, and since when.

A night's value of a measurement is the median of its repeats. It is compared, in logarithms, with the last `TRAILING` nights:

- worse: above their median by more than `DEVIATIONS` robust standard deviations (1.4826 times the median absolute deviation) and
  by more than the measurement's own tolerance. Nights in which it was found worse are no part of the comparison, so that a step
  stays found until it is repaired or accepted.
- drifted: the median of the last `RECENT` nights, this one included, is worse than that of the first `TRAILING` by more than
  `DRIFT_DEVIATIONS` of the standard errors of such a difference, and by more than the tolerance. A change of a fraction of a
  percent a night is no step in any of them.

Fewer than `LEAST_NIGHTS` to compare with are too few to say how much nights differ; then there is no verdict.

Rejected: mean and standard deviation, which one bad night moves; a fixed band for all, which is too wide for what repeats exactly
and too narrow for what a busy machine disturbs; tests for a change of level over the whole series (CUSUM, change points),
which need nights after the change before they name it.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

TRAILING, LEAST_NIGHTS, RECENT = 20, 7, 7
DEVIATIONS, DRIFT_DEVIATIONS = 3.0, 5.0  # a drift is looked for every night in much the same nights
_OF_NORMAL = 1.4826  # standard deviations in a median absolute deviation

Night = Mapping[str, Any]
Status = Literal["worse", "drifted", "better", "as before", "too few nights"]
WORSE: tuple[Status, ...] = ("worse", "drifted")


@dataclass(frozen=True)
class Measurement:
    """One number of a night, above 0: a time or an error, so that less is better.

    Attributes:
        section: by which it is measured.
        tolerance: relative change that matters to nobody.
        meaning: what is divided by what, in words.
    """

    name: str
    section: str
    tolerance: float
    meaning: str


@dataclass(frozen=True)
class Judgement:
    """Of one measurement of a night.

    Attributes:
        nights: that it was compared with.
        expected: their median; of a drift that of the first nights. None where they are too few.
        band: values that are neither worse nor better, lowest and highest.
        change: relative to what was expected, of the value, or of a drift of the last nights' median; above 0 is worse.
        since: index into the history of the last night that was right, where the status is worse.
    """

    name: str
    status: Status
    value: float
    nights: int
    expected: float | None = None
    band: tuple[float, float] | None = None
    change: float | None = None
    since: int | None = None

    @property
    def worse(self) -> bool:
        return self.status in WORSE

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def judge(measurement: Measurement, value: float, history: Sequence[Night]) -> Judgement:
    """What a value shows against the nights of the same suite on the same hardware, oldest first.

    history: records of nights, see `ups.pipeline.nightly.history`.
    """
    name = measurement.name
    seen = [
        (index, night["measurements"][name]["value"], night["verdict"].get(name))
        for index, night in enumerate(history)
        if name in night["measurements"]
    ]
    right = [(index, other) for index, other, verdict in seen if verdict != "worse"]
    trailing = right[-TRAILING:]
    if len(trailing) < LEAST_NIGHTS:
        return Judgement(name, "too few nights", value, len(trailing))
    last_right = next(
        (index for index, _, verdict in reversed(seen) if verdict not in WORSE), trailing[-1][0]
    )
    expected, deviation = _middle([other for _, other in trailing])
    width = max(DEVIATIONS * deviation, math.log1p(measurement.tolerance))
    change = math.log(value) - math.log(expected)
    status: Status = "as before"
    since = None
    if change > width:
        status, since = "worse", last_right
    elif change < -width:
        status = "better"
    if status == "as before" and len(right) >= TRAILING + RECENT - 1:
        first = [other for _, other in right[:TRAILING]]
        before, deviation = _middle(first)
        now = statistics.median([*(other for _, other in right[1 - RECENT :]), value])
        drifted = math.log(now) - math.log(before)
        allowed = max(DRIFT_DEVIATIONS * _error_of_medians(deviation), math.log1p(measurement.tolerance))
        if drifted > allowed:
            return Judgement(
                name, "drifted", value, len(first), before, _around(before, allowed), math.expm1(drifted),
                right[TRAILING - 1][0],
            )  # fmt: skip
    return Judgement(
        name, status, value, len(trailing), expected, _around(expected, width), math.expm1(change), since
    )


def _middle(values: Sequence[float]) -> tuple[float, float]:
    """Median, and the robust standard deviation of the logarithms."""
    logarithms = [math.log(value) for value in values]
    middle = statistics.median(logarithms)
    deviation = _OF_NORMAL * statistics.median(abs(other - middle) for other in logarithms)
    return math.exp(middle), deviation


def _error_of_medians(deviation: float) -> float:
    """Standard error of the difference of both medians of a drift; that of a median is 1.25 times a mean's."""
    return 1.25 * deviation * math.sqrt(1 / RECENT + 1 / TRAILING)


def _around(middle: float, width: float) -> tuple[float, float]:
    return middle * math.exp(-width), middle * math.exp(width)
