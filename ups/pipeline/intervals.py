"""95 % intervals of means, by Student's t."""

import math
import statistics
from collections.abc import Sequence

# 0.975 quantiles for 1, 2, ... degrees of freedom; beyond them the last, which is a little too wide.
_STUDENT = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip


def half_width(values: Sequence[float]) -> float:
    """Of the interval about the mean. values: two or more."""
    freedom = len(values) - 1
    quantile = _STUDENT[min(freedom, len(_STUDENT)) - 1]
    return quantile * statistics.stdev(values) / math.sqrt(len(values))
