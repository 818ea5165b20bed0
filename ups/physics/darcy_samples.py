"""Random coefficients and initial states of two-dimensional Darcy flow: PDEBench's distribution.

Coefficient. A sum of five equal Gaussians, cut at a level:

    s(x, y) = sum_{g=1..5} exp(-((x - x_g)^2 + (y - y_g)^2)/w_g),   x_g, y_g ~ U(0, 1),  w_g ~ U(0, 1)/2
    a = 1 where s exceeds the mean of s over all cells of a block of 200 rows, 0.1 elsewhere

so that a row with narrow Gaussians is 0.1 nearly everywhere, and one with wide ones nearly 1. Row i belongs to
block i // 200; the level of its block is computed from the 200 rows of the block whichever rows are asked for,
and a row is a function of (seed, i) alone, given the resolution.

Initial state. An offset and a smooth random field, half of the fields windowed:

    u0 = b + w(x, y) f(x, y),   b ~ U(0.1, 10)

What follows is *ours*, where PDEBench's documentation is silent: f is the sum of four plane waves
A sin(2 pi (k x + l y) + phi) with k, l drawn from 0..3, A ~ U(0, 1) and phi ~ U(0, 2 pi), shifted and scaled to the
range [0, 1]; the window is the product of one along x and one along y, each that of the one-dimensional
problems, 0.45 long with edges of width 0.01, which begin independently at 0.1 + 0.35 U(0, 1); it is applied to
f and not to the offset. The last choice is supported by PDEBench's stored frames, from which the steady
solution is 0.198, 0.023 and 0.0022 away (median relative L2 of 64 rows at forcing 0.01, 0.1 and 1). Ours: 0.204,
0.025 and 0.0024 (400 rows); with the offset windowed too: 0.112, 0.012 and 0.0011.

Units: x, y in domain lengths, at the cell centres (i + 1/2)/N.

Sources: PDEBench (Takamoto et al. 2022), the distribution as documented for its 2D Darcy flow; the rows
themselves are ours. Every row has a counter-based generator of its own (Philox4x64, Salmon et al. 2011), keyed
by the pair (seed, i) as those of `initial_conditions` are, with the upper end of its counter naming what is
drawn: coefficient and initial state of a row are independent.

Rejected: the expected level over all rows in place of the block's (there is no closed form on the unit
square that is worth it, and PDEBench's rows do share their block's); one generator for a block.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ups.physics.initial_conditions import (
    WINDOW_BEGIN,
    WINDOW_EDGE,
    WINDOW_LENGTH,
    WINDOW_SPREAD,
    cell_centres,
)
from ups.physics.rows import checked_rows, row_uniforms

BLOCK_ROWS = 200
GAUSSIANS = 5
WIDTH_MOST = 0.5
COEFFICIENT_LOW = 0.1
COEFFICIENT_HIGH = 1.0

OFFSET_LOW = 0.1
OFFSET_HIGH = 10.0
WAVES = 4
WAVENUMBERS = 4
WINDOW_PROBABILITY = 0.5

# The streams of one row, and what it consumes of each: centres and widths; wavenumbers, amplitudes and phases,
# then offset, whether there is a window, and where it begins.
_COEFFICIENT_STREAM = 1
_COEFFICIENT_UNIFORMS = 3 * GAUSSIANS
_INITIAL_STREAM = 2
_INITIAL_UNIFORMS = 4 * WAVES + 4


def darcy_coefficients(
    rows: NDArray[np.integer] | Sequence[int], *, seed: int, resolution: int
) -> NDArray[np.float64]:
    """The coefficients of the given rows, [n, x, y] float64, each cell 0.1 or 1.

    Args:
        rows: row numbers [n], not negative, in any order; equal numbers give equal coefficients.
        seed: names the collection of rows; 0 <= seed < 2**64.
        resolution: number N of cells along each axis, at least 2.

    Raises:
        ValueError: an argument is out of its range.
    """
    row_numbers = checked_rows(rows, seed=seed, resolution=resolution)
    along_x, along_y = _gaussian_factors(row_numbers, seed=seed, resolution=resolution)
    levels = np.array([_block_level(int(row) // BLOCK_ROWS, seed, resolution) for row in row_numbers])
    total = np.matmul(along_x.swapaxes(1, 2), along_y)
    return np.where(total > levels[:, None, None], COEFFICIENT_HIGH, COEFFICIENT_LOW)


def darcy_initial_states(
    rows: NDArray[np.integer] | Sequence[int], *, seed: int, resolution: int
) -> NDArray[np.float64]:
    """The initial states of the given rows, [n, x, y] float64, all in [0.1, 11].

    Args:
        rows: row numbers [n], not negative, in any order; equal numbers give equal states.
        seed: names the collection of rows; 0 <= seed < 2**64.
        resolution: number N of cells along each axis, at least 2.

    Raises:
        ValueError: an argument is out of its range.
    """
    row_numbers = checked_rows(rows, seed=seed, resolution=resolution)
    uniform = row_uniforms(row_numbers, seed=seed, stream=_INITIAL_STREAM, count=_INITIAL_UNIFORMS)
    wavenumber_x, wavenumber_y, amplitude, phase, (offset, window, begin_x, begin_y) = np.split(
        uniform.T, [WAVES, 2 * WAVES, 3 * WAVES, 4 * WAVES]
    )

    coordinates = cell_centres(resolution)
    states = np.zeros((len(row_numbers), resolution, resolution))
    for wave in range(WAVES):
        angle_x = np.outer(np.floor(WAVENUMBERS * wavenumber_x[wave]), coordinates)
        angle_y = np.outer(np.floor(WAVENUMBERS * wavenumber_y[wave]), coordinates) + phase[wave][:, None]
        turns = angle_x[:, :, None] + angle_y[:, None, :]
        states += amplitude[wave][:, None, None] * np.sin(2.0 * np.pi * turns)
    states -= states.min(axis=(1, 2), keepdims=True)
    # Four waves that all came out constant, once in 65536 rows, have no range: their field is 0 up to round-off.
    states /= np.maximum(states.max(axis=(1, 2), keepdims=True), 1e-9)

    windowed = window < WINDOW_PROBABILITY
    states[windowed] *= (
        _window(coordinates, begin_x[windowed])[:, :, None]
        * _window(coordinates, begin_y[windowed])[:, None, :]
    )
    states += (OFFSET_LOW + (OFFSET_HIGH - OFFSET_LOW) * offset)[:, None, None]
    return states


def _gaussian_factors(
    row_numbers: NDArray[np.integer], *, seed: int, resolution: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The five Gaussians of every row as factors along x and along y, each [n, gaussian, cell]."""
    uniform = row_uniforms(row_numbers, seed=seed, stream=_COEFFICIENT_STREAM, count=_COEFFICIENT_UNIFORMS)
    centre_x, centre_y, width = np.split(uniform[:, :, None], 3, axis=1)
    width = WIDTH_MOST * (1.0 - width)  # in (0, 1/2]: never 0
    coordinates = cell_centres(resolution)
    return (
        np.exp(-((coordinates - centre_x) ** 2) / width),
        np.exp(-((coordinates - centre_y) ** 2) / width),
    )


@lru_cache(maxsize=1024)
def _block_level(block: int, seed: int, resolution: int) -> float:
    """The mean over all cells and rows of a block of the sum of Gaussians; a Gaussian's is a product of two."""
    row_numbers = np.arange(block * BLOCK_ROWS, (block + 1) * BLOCK_ROWS)
    along_x, along_y = _gaussian_factors(row_numbers, seed=seed, resolution=resolution)
    return float((along_x.mean(axis=2) * along_y.mean(axis=2)).sum(axis=1).mean())


def _window(coordinates: NDArray[np.float64], uniform: NDArray[np.float64]) -> NDArray[np.float64]:
    """Near 1 on [begin, begin + WINDOW_LENGTH] and near 0 elsewhere, [n, cell]."""
    begin = (WINDOW_BEGIN + WINDOW_SPREAD * uniform)[:, None]
    rising = np.tanh((coordinates - begin) / WINDOW_EDGE)
    falling = np.tanh((coordinates - begin - WINDOW_LENGTH) / WINDOW_EDGE)
    return 0.5 * (rising - falling)
