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
    *key: int | str, batch_size: int, trajectories: int, starts: int, rank: int = 0, world: int = 1
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """This rank's share of a batch: trajectory indices and start frames, each [batch_size / world].

    Uniform with replacement over all windows; the key (seed, problem, step) names the draw.
    """
    flat = numpy_generator(*key, "batch").integers(0, trajectories * starts, size=batch_size)
    mine = flat[rank::world]
    return mine // starts, mine % starts


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
