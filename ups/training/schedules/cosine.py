"""Half a cosine (Loshchilov and Hutter 2017, eq. 5)."""

import math


def shape(progress: float) -> float:
    """See `ups.training.schedules`."""
    return 0.5 * (1 + math.cos(math.pi * progress))
