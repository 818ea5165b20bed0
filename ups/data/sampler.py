"""Which windows a training step sees: a function of (seed, place in the sequence, global slot), without state.

Rank r takes slots r modulo the number of ranks: the union over ranks is the same batch for every world size,
and a resumed run needs to know only where it is. A window is a (trajectory, start) pair, so batches are drawn
across trajectories.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ups.runtime.randomness import numpy_generator


def draw_windows(
    *key: int | str,
    batch_size: int,
    trajectories: int,
    starts: int,
    start_exponent: float = 0.0,
    rank: int = 0,
    world: int = 1,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """This rank's share of a batch: trajectory indices and start frames, each [batch_size / world].

    With replacement over all windows, start s in proportion to (1 + s)^-start_exponent; the key (seed, problem,
    step) names the draw.
    """
    generator = numpy_generator(*key, "batch")
    if not start_exponent:
        mine = generator.integers(0, trajectories * starts, size=batch_size)[rank::world]
        return mine // starts, mine % starts
    rows = generator.integers(0, trajectories, size=batch_size)
    weights = np.arange(1, starts + 1, dtype=np.float64) ** -start_exponent
    # Rounding may leave the last limit below 1.
    limits = np.cumsum(weights / weights.sum())[:-1]
    first = np.searchsorted(limits, generator.random(batch_size), "right")
    return rows[rank::world], first[rank::world].astype(np.int64)


def permuted_windows(
    *key: int | str,
    place: int,
    batch_size: int,
    trajectories: int,
    starts: int,
    rank: int = 0,
    world: int = 1,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The same from a permutation per epoch: every window once, and no two ranks the same.

    Args:
        key: names the sequence of permutations (seed, problem).
        place: slots drawn before this batch. A batch may end one epoch and begin the next.
    """
    windows = trajectories * starts
    slots = place + np.arange(rank, batch_size, world)
    epochs = slots // windows
    flat = np.empty(len(slots), dtype=np.int64)
    for epoch in np.unique(epochs).tolist():
        here = epochs == epoch
        flat[here] = _permutation(key, epoch, windows)[slots[here] % windows]
    return flat // starts, flat % starts


@lru_cache(maxsize=4)
def _permutation(key: tuple[int | str, ...], epoch: int, length: int) -> NDArray[np.int64]:
    # Ranks of uniform numbers rather than Generator.permutation, whose algorithm NumPy may change.
    scores = numpy_generator(*key, "epoch", epoch).random(length)
    return np.argsort(scores, kind="stable")
