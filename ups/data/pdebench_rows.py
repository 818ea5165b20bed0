"""Rows of checked arrays, read piece by piece into one array of fields."""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ups.data.hdf5 import CheckedArray
from ups.data.layout import check_values
from ups.problems import Problem, Variables
from ups.problems.ideal_gas import to_conserved

READ_BYTES = 64 * 1024 * 1024
"""Rows are read in pieces of about this many bytes: a whole split may not fit into memory twice."""


def read_rows(
    arrays: list[CheckedArray],
    problem: Problem,
    wanted: NDArray[np.int64],
    *,
    grid: tuple[int, ...],
    frames: slice,
    space_stride: int,
    variables: Variables,
) -> NDArray[np.float32]:
    """Rows `wanted` [n] as [n, t, *grid, C], in their order; neighbours are read at once, none twice.

    `arrays` are those that the problem declares, `frames` starts at 0. Strides are taken in memory: HDF5 walks a
    strided selection point by point. The one frame of a map is repeated.

    Raises:
        DataError: a value that the field cannot have, or that does not decode.
        StorageError: the operating system failed to read.
    """
    kept_count = len(range(0, frames.stop, frames.step))
    points = tuple(length // space_stride for length in grid)
    fields = np.empty((len(wanted), kept_count, *points, len(arrays)), dtype=np.float32)

    ascending, position = np.unique(wanted, return_inverse=True)
    order = np.argsort(position, kind="stable")  # the places in `wanted`, by ascending row
    bounds = np.searchsorted(position[order], np.arange(len(ascending) + 1))
    row_bytes = 4 * len(arrays) * frames.stop * math.prod(grid)
    kept_points = (slice(None, None, space_stride),) * len(grid)
    for start, stop in _runs(ascending, max(1, READ_BYTES // row_bytes)):
        first, count = int(ascending[start]), stop - start
        block = np.empty((count, 1 if problem.is_map else kept_count, *points, len(arrays)), dtype=np.float32)
        for channel, (array, declared) in enumerate(zip(arrays, problem.arrays, strict=True)):
            selection = tuple(
                slice(0, frames.stop) if axis == "time" else slice(None) for axis in declared.axes[1:]
            )
            values = array.read((slice(first, first + count), *selection)).reshape(count, -1, *grid)
            check_values(
                values, problem.fields[channel], ascending[start:stop], array.where, timed=not problem.is_map
            )
            kept = values if problem.is_map else values[:, :: frames.step]
            block[..., channel] = kept[:, :, *kept_points]
        if variables == "conserved":
            block = to_conserved(block.astype(np.float64))
        places = order[bounds[start] : bounds[stop]]
        fields[places] = block[position[places] - start]
    return fields


def _runs(ascending: NDArray[np.int64], longest: int) -> Iterator[tuple[int, int]]:
    """Index ranges of `ascending` that hold consecutive numbers, none longer than `longest`."""
    start = 0
    for index in range(1, len(ascending) + 1):
        ends = index == len(ascending) or ascending[index] != ascending[index - 1] + 1
        if ends or index - start == longest:
            yield start, index
            start = index
