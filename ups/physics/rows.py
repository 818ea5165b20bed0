"""Random numbers of numbered rows: those of row i are a function of (seed, i) alone.

Every row has a counter-based generator of its own (Philox4x64, Salmon et al. 2011) whose 128-bit key is the
pair, so that any subset, order or chunk size gives the same rows.

Rejected: one generator for all rows, as PDEBench has (any other selection would give other rows).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def checked_rows(
    rows: NDArray[np.integer] | Sequence[int], *, seed: int, resolution: int
) -> NDArray[np.integer]:
    """Row numbers as an array [n].

    Raises:
        ValueError: rows are no numbers from 0 upwards, the seed is no 64-bit number, or resolution is below 2.
    """
    row_numbers = np.asarray(rows)
    if row_numbers.ndim != 1 or (row_numbers.size and not np.issubdtype(row_numbers.dtype, np.integer)):
        raise ValueError(f"rows must be integers [n], got {row_numbers.dtype} {row_numbers.shape}")
    if row_numbers.size and row_numbers.min() < 0:
        raise ValueError(f"rows must not be negative, got {row_numbers.min()}")
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed must be in [0, 2**64), got {seed}")
    if resolution < 2:
        raise ValueError(f"resolution must be at least 2, got {resolution}")
    return row_numbers


def row_uniforms(
    row_numbers: NDArray[np.integer], *, seed: int, count: int, stream: int = 0
) -> NDArray[np.float64]:
    """Numbers in [0, 1), [n, count]: those of row i are a function of (seed, i, stream)."""
    uniform = np.empty((row_numbers.size, count))
    counter = np.array([0, 0, 0, stream], dtype=np.uint64)
    for draws, row in zip(uniform, row_numbers.tolist(), strict=True):
        key = np.array([seed, row], dtype=np.uint64)
        np.random.Generator(np.random.Philox(key=key, counter=counter)).random(out=draws)
    return uniform
