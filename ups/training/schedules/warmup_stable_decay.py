"""The peak, then one minus a root (Hägele et al. 2024, arXiv:2405.18392, section 3)."""

import math


def shape(progress: float, *, decay: float) -> float:
    """See `ups.training.schedules`. decay: the part of the steps in which it falls."""
    falling = progress - (1 - decay)
    return 1.0 if falling <= 0 else 1 - math.sqrt(min(1.0, falling / decay))
