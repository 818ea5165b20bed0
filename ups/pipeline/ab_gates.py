"""What pairs of trainings show: ratios with their intervals, and whether they pass the gates of an A/B comparison."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ups.errors import ComparisonError
from ups.pipeline.comparison import BASELINE, OPTIMISED, Trained
from ups.pipeline.intervals import half_width


@dataclass(frozen=True)
class Gates:
    """What the optimised configuration must show, with the ends of 95 % intervals over seeds.

    Attributes:
        speed: it comes to the baseline's error more than this many times as fast. Time to an error, and not steps a second: a
            step that learns more may take longer.
        error: the error is no larger than the baseline's by more than this part.
        memory: times the baseline's, at most; of the seeds' mean.
    """

    speed: float = 1.0
    error: float = 0.03
    memory: float = 1.1

    def to_json(self) -> dict[str, float]:
        return asdict(self)


@dataclass(frozen=True)
class Ratio:
    """A geometric mean over pairs, and its 95 % interval by Student's t of the logarithms."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Ratio":
        """values: at least two positive numbers."""
        logarithms = [math.log(value) for value in values]
        middle, width = statistics.fmean(logarithms), half_width(logarithms)
        return cls(*(math.exp(value) for value in (middle, middle - width, middle + width)))

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def judged(trained: Sequence[Trained], gates: Gates) -> list[dict[str, Any]]:
    """A record per arm, the baseline first: its means, and its ratios to the baseline with the same seed.

    The target is the error which the baseline of the seed ends with, or one so little above it that the gate lets it pass.

    trained: every arm with the same two seeds or more.
    """
    by_arm: dict[str, dict[int, Trained]] = {}
    for one in trained:
        by_arm.setdefault(one.arm, {})[one.seed] = one
    baseline = by_arm[BASELINE]
    targets = {seed: one.error * (1 + gates.error) for seed, one in baseline.items()}
    records = []
    for arm, own in by_arm.items():
        pairs = [(baseline[seed], own[seed]) for seed in baseline]
        reached = [_seconds_to(one, targets[seed]) for seed, one in sorted(own.items())]
        record: dict[str, Any] = {
            "arm": arm,
            "seeds": sorted(own),
            "seconds_per_step": statistics.fmean(one.seconds_per_step for one in own.values()),
            "seconds": statistics.fmean(one.seconds for one in own.values()),
            "seconds_to_target": _mean_or_none(reached),
            "error": statistics.fmean(one.error for one in own.values()),
            "memory_gigabytes": _mean_or_none([one.memory for one in own.values()]),
        }
        if arm != BASELINE:
            record |= {
                "step_speed": Ratio.of([a.seconds_per_step / b.seconds_per_step for a, b in pairs]),
                "speed": _speed(
                    [_seconds_to(baseline[seed], targets[seed]) for seed in sorted(own)], reached
                ),
                "error_ratio": _error_ratio(pairs),
                "memory_ratio": _memory_ratio(pairs),
            }
            if arm == OPTIMISED:
                record["failed"] = _failures(record, gates)
        records.append(record)
    return records


def _speed(baseline: Sequence[float | None], own: Sequence[float | None]) -> Ratio | None:
    """How much sooner the target is reached; None where some seed never reaches it."""
    times = [
        (one, other)
        for one, other in zip(baseline, own, strict=True)
        if one is not None and other is not None
    ]
    return Ratio.of([one / other for one, other in times]) if len(times) == len(own) else None


def _error_ratio(pairs: Sequence[tuple[Trained, Trained]]) -> Ratio | None:
    """None where a training came to nothing."""
    if any(not math.isfinite(one.error) for pair in pairs for one in pair):
        return None
    return Ratio.of([second.error / first.error for first, second in pairs])


def _memory_ratio(pairs: Sequence[tuple[Trained, Trained]]) -> float | None:
    first, second = (_mean_or_none([pair[place].memory for pair in pairs]) for place in (0, 1))
    return None if first is None or second is None else second / first


def _mean_or_none(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return statistics.fmean(present) if len(present) == len(values) else None


def _seconds_to(one: Trained, target: float) -> float | None:
    return next((seconds for seconds, error in one.curve if error <= target), None)


def _failures(record: dict[str, Any], gates: Gates) -> list[str]:
    """In words; empty: all gates are passed."""
    failures = []
    speed, error, memory = record["speed"], record["error_ratio"], record["memory_ratio"]
    if speed is None:
        failures.append("speed: not every seed comes to the baseline's error")
    elif not speed.low > gates.speed:
        failures.append(f"speed: {speed} times the baseline's is not shown to be above {gates.speed:g}")
    if error is None:
        failures.append("error: a training ended with one that is not finite")
    elif not error.high <= 1 + gates.error:
        failures.append(f"error: {error} times the baseline's is not shown to be at most {1 + gates.error:g}")
    if memory is not None and not memory <= gates.memory:
        failures.append(f"memory: {memory:.2f} times the baseline's is more than {gates.memory:g}")
    return failures


def require_passed(records: Sequence[dict[str, Any]], *, where: str) -> None:
    """Of `judged`.

    Raises:
        ComparisonError: the optimised configuration does not pass a gate.
    """
    failed = next(record["failed"] for record in records if "failed" in record)
    if failed:
        raise ComparisonError("; ".join(failed), where=where, fix="more seeds narrow the intervals")
