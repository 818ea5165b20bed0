"""Random initial states of the one-dimensional problems: PDEBench's distribution in closed form.

    u(x) = sum_{n=1..4} A_n sin(2 pi n m_n x / L + phi_n),    A_n ~ U(0, 1),  phi_n ~ U(0, 2 pi)

Two of the modes 1..4 are drawn independently, with replacement; m_n in {0, 1, 2} counts how often mode n
came up and multiplies its *wavenumber*. Three consequences, all of them part of the distribution:
- the wavenumbers are {1, 2, 3, 4}, and {2, 4, 6, 8} in the quarter of the rows whose draws agree;
- a mode that was not drawn is not switched off: it adds the constant A_n sin(phi_n), so rows have a mean;
- the amplitude does not depend on m_n.

Then, each with probability 1/10: the absolute value; a smooth window on [x_L, x_L + 0.45] with edges of
width 0.01. And a random sign. PDEBench draws "is there a window" and "where does it begin" from one random
number v, so that windowed rows, those with v < 0.1, always begin at x_L = 0.1 + 0.35 v in [0.1, 0.135).

Units: x in domain lengths, at the cell centres (i + 1/2)/N; L = x_{N-1} - x_0 = 1 - 1/N. With this L the
first and the last cell hold the same value: the state is a period shifted by one cell, whose seam is below
the grid's own error. PDEBench has it so, hence we do. It also makes the state a function of N: data
at a lower resolution "as PDEBench" are a strided fine grid, not a coarse one.

Source: PDEBench (Takamoto et al. 2022), the distribution as documented for its 1D problems; the rows
themselves are ours. Row i is a function of (seed, i) alone: it has a counter-based generator of its own
(Philox4x64, Salmon et al. 2011) whose 128-bit key is the pair.

Rejected: one generator for all rows, as PDEBench has (any subset, reordering or other chunk size would give
other rows); `Generator.integers` and the like (NumPy may change their algorithm; here each draw is an explicit
function of uniform numbers).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ups.physics.rows import checked_rows, row_uniforms

MODES = 4
DRAWN_MODES = 2
ABSOLUTE_PROBABILITY = 0.1
WINDOW_PROBABILITY = 0.1
WINDOW_BEGIN = 0.1
WINDOW_SPREAD = 0.35
WINDOW_LENGTH = 0.45
WINDOW_EDGE = 0.01

# What one row consumes: amplitudes, phases, the drawn modes, absolute value, sign, window.
_UNIFORMS = 2 * MODES + DRAWN_MODES + 3


def cell_centres(resolution: int) -> NDArray[np.float64]:
    """Centres (i + 1/2)/N of N equal cells of the unit interval, [x] float64."""
    return (np.arange(resolution, dtype=np.float64) + 0.5) / resolution


def sinusoid_superposition(
    coordinates: NDArray[np.float64],
    *,
    amplitudes: NDArray[np.float64],
    phases: NDArray[np.float64],
    wavenumbers: NDArray[np.integer],
) -> NDArray[np.float64]:
    """sum_n amplitudes[:, n] sin(2 pi wavenumbers[:, n] x / L + phases[:, n]), L = x[-1] - x[0].

    Shapes: coordinates [x]; amplitudes, phases (radians) and wavenumbers [n, modes]; returns [n, x] float64.
    """
    length = coordinates[-1] - coordinates[0]
    angle_per_wavenumber = 2.0 * np.pi / length * coordinates
    total = np.zeros((len(amplitudes), len(coordinates)))
    for mode in range(amplitudes.shape[1]):
        angle = wavenumbers[:, mode, None] * angle_per_wavenumber + phases[:, mode, None]
        total += amplitudes[:, mode, None] * np.sin(angle, out=angle)
    return total


def sinusoidal_initial_conditions(
    rows: NDArray[np.integer] | Sequence[int], *, seed: int, resolution: int
) -> NDArray[np.float64]:
    """The initial states of the given rows, [n, x] float64, at the cell centres of [0, 1).

    Args:
        rows: row numbers [n], not negative, in any order; equal numbers give equal states.
        seed: names the collection of rows; 0 <= seed < 2**64.
        resolution: number N of cells, at least 2.

    Raises:
        ValueError: an argument is out of its range.
    """
    row_numbers = checked_rows(rows, seed=seed, resolution=resolution)
    uniform = row_uniforms(row_numbers, seed=seed, count=_UNIFORMS)
    amplitude, phase, mode, (absolute, sign, window) = np.split(
        uniform.T, np.cumsum([MODES, MODES, DRAWN_MODES])
    )

    drawn = np.floor(MODES * mode).astype(np.int64)
    multiplicity = (drawn == np.arange(MODES)[:, None, None]).sum(axis=1)
    wavenumber = np.arange(1, MODES + 1)[:, None] * multiplicity

    coordinates = cell_centres(resolution)
    states = sinusoid_superposition(
        coordinates, amplitudes=amplitude.T, phases=2.0 * np.pi * phase.T, wavenumbers=wavenumber.T
    )
    positive = absolute < ABSOLUTE_PROBABILITY
    states[positive] = np.abs(states[positive])
    states[sign < 0.5] *= -1.0
    windowed = window < WINDOW_PROBABILITY
    states[windowed] *= _smooth_window(coordinates, WINDOW_BEGIN + WINDOW_SPREAD * window[windowed])
    return states


def _smooth_window(coordinates: NDArray[np.float64], begins: NDArray[np.float64]) -> NDArray[np.float64]:
    """Near 1 on [begin, begin + WINDOW_LENGTH] and near 0 elsewhere, [n, x]."""
    begin = begins[:, None]
    rising = np.tanh((coordinates - begin) / WINDOW_EDGE)
    falling = np.tanh((coordinates - begin - WINDOW_LENGTH) / WINDOW_EDGE)
    return 0.5 * (rising - falling)
