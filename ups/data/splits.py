"""Which trajectories serve which purpose.

A split is by trajectory: frames of one trajectory never serve two purposes. It is a function of its
arguments alone.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ups.errors import DataError
from ups.problems.generated import SPLITS

TRAJECTORIES = "trajectories.hdf5"  # of a problem's split


def generated_rows(split: str, count: int) -> NDArray[np.int64]:
    """Numbers of the trajectories of a split that are solved here, [count] int64 ascending.

    There is no end of them, so every split has a third of all numbers to itself: more of one split change no other.
    """
    return np.arange(count, dtype=np.int64) * len(SPLITS) + SPLITS.index(split)


def split_rows(
    n_rows: int,
    counts: Mapping[str, int],
    *,
    seed: int,
    test_first: int | None,
    original_rows: NDArray[np.int64] | None = None,
) -> dict[str, NDArray[np.int64]]:
    """Disjoint rows for train, validation and test, each [count] int64 ascending.

    `test_first` reserves the first rows of the file for testing, as PDEBench does (1000 of 10,000): train
    and validation never touch them, and the test rows are the first counts["test"] of them *whatever the
    seed*, so that runs with different seeds are compared on the same trajectories. With None there is
    no reserved part and the test rows are drawn like the others.

    A larger count keeps every row that a smaller one had, and leaves the other splits alone: a data-scaling curve
    changes one thing, and a larger test set trains nothing anew. (Without a reserved part, more test rows push the
    validation rows on.)

    Args:
        n_rows: number of trajectories in the file.
        counts: how many rows each of "train", "validation" and "test" gets; 0 is allowed.
        seed: of the draw; 0 <= seed < 2**64.
        test_first: number of leading rows reserved for testing, or None.
        original_rows: [n_rows] for a file of some rows of another: their numbers there, ascending, by which
            rows are reserved. None: their own numbers.

    Raises:
        DataError: the file has fewer rows than asked for.
        ValueError: an argument is out of its range.
    """
    if set(counts) != set(SPLITS):
        raise ValueError(f"counts must name exactly {', '.join(SPLITS)}, got {', '.join(sorted(counts))}")
    if n_rows < 0 or any(count < 0 for count in counts.values()):
        raise ValueError(f"rows and counts must not be negative, got {n_rows} and {dict(counts)}")
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed must be in [0, 2**64), got {seed}")
    if test_first is not None and test_first < 0:
        raise ValueError(f"test_first must not be negative, got {test_first}")

    # Ranks of uniform numbers rather than Generator.permutation, whose algorithm NumPy may change.
    scores = np.random.Generator(np.random.Philox(key=np.array([seed, 2**64 - 1], dtype=np.uint64))).random(
        n_rows
    )
    shuffled = np.argsort(scores, kind="stable")
    if test_first is None:
        _require(n_rows, {name: counts[name] for name in SPLITS}, place="the file")
        test, others = shuffled[: counts["test"]], shuffled[counts["test"] :]
    else:
        numbers = np.arange(n_rows) if original_rows is None else original_rows
        reserved = int((numbers < test_first).sum())
        _require(
            reserved,
            {"test": counts["test"]},
            place=f"the part reserved for testing (rows before {test_first})",
        )
        learning = {name: counts[name] for name in ("train", "validation")}
        _require(n_rows - reserved, learning, place=f"the part for learning (rows from {test_first} on)")
        test, others = (
            np.flatnonzero(numbers < test_first)[: counts["test"]],
            shuffled[numbers[shuffled] >= test_first],
        )

    # From both ends: neither count moves the rows of the other.
    validation, train = others[: counts["validation"]], others[len(others) - counts["train"] :]
    chosen = {"train": train, "validation": validation, "test": test}
    return {name: np.sort(rows).astype(np.int64) for name, rows in chosen.items()}


def fitted_and_held_out(
    train: NDArray[np.int64], residual_fraction: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Train rows that the operator fits, and those kept for the model of its residual.

    Residuals on fitted trajectories are smaller than on new ones; a model of them is over-confident.
    """
    held_out = round(len(train) * residual_fraction)
    return train[: len(train) - held_out], train[len(train) - held_out :]


def _require(available: int, asked: Mapping[str, int], *, place: str) -> None:
    needed = sum(asked.values())
    if needed > available:
        wishes = " + ".join(f"{count} {name}" for name, count in asked.items())
        raise DataError(
            f"{place} has {available} rows, but {wishes} = {needed} were asked for",
            where="split",
            fix="ask for fewer rows, or use a file with more",
        )
