"""What the records of a training say of its time."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Records = Sequence[Mapping[str, Any]]
_ERROR = "validation_relative_l2"


@dataclass(frozen=True)
class Pace:
    """Steps up to a record of the training.

    Attributes:
        step: the last of them.
        seconds: of all steps so far.
        seconds_per_step: of those since the record before.
    """

    step: int
    seconds: float
    seconds_per_step: float


def paces(records: Records) -> list[Pace]:
    """One per record of the training; validations and checkpoints take no time here."""
    found: list[Pace] = []
    step, seconds = 0, 0.0
    for record in records:
        if "seconds_per_step" in record:
            seconds += record["seconds_per_step"] * (record["step"] - step)
            step = record["step"]
            found.append(Pace(step, seconds, record["seconds_per_step"]))
    return found


def validations(records: Records) -> list[tuple[int, float]]:
    """Steps, and error on decoded fields of the validation split; infinite where it is no number."""
    errors = {record["step"]: record[_ERROR] for record in records if _ERROR in record}
    return [(step, math.inf if error is None else error) for step, error in errors.items()]


def peak_memory(records: Records) -> float | None:
    """Gigabytes of the first rank; None where a training was killed before it could tell."""
    told = [record["peak_memory_gigabytes"] for record in records if "peak_memory_gigabytes" in record]
    return max(told, default=None)
