"""Which windows a training step sees: a function of (seed, step, global slot), without state.

Slots are drawn uniformly with replacement over all (trajectory, start) pairs, and rank r takes slots
r modulo the number of ranks: the union over ranks is the same batch for every world size, and a resumed
run needs to know only its step.
"""

import numpy as np

from ups.runtime.randomness import numpy_generator


def draw_windows(
    seed: int, step: int, *, batch_size: int, trajectories: int, starts: int, rank: int = 0, world: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Trajectory indices and start frames of this rank's share of the batch, each [batch_size / world]."""
    flat = numpy_generator(seed, "batch", step).integers(0, trajectories * starts, size=batch_size)
    mine = flat[rank::world]
    return mine // starts, mine % starts
