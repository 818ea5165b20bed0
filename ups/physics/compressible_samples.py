"""Random initial states of the one-dimensional compressible flow: a distribution of our own.

PDEBench's distribution for this problem is not documented here and no genuine rows are at hand, so nothing is
imitated. Over the domain, xi in [0, 1) from its left to its right end, each with g a random superposition

    g(xi) = sum_{n=1..4} A_n sin(2 pi n xi + phi_n) / sum_n A_n,     A_n ~ U(0, 1),  phi_n ~ U(0, 2 pi)

of its own, which is smooth, periodic and within [-1, 1]:

    rho = rho_0 (1 + a g_rho)      rho_0 ~ 2^U(-1, 1),   a ~ U(0, 1/2)
    p   = p_0 (1 + b g_p)          p_0 ~ 2^U(-1, 1),     b ~ U(0, 1/2)
    v   = c_0 (M + m g_v)          M ~ U(-0.35, 0.35),   m ~ U(0, 0.35),    c_0 = sqrt(gamma p_0 / rho_0)

so that density and pressure are at least a quarter and at most three, and the Mach number is seldom above 1 (never
above 1.22). With outflow, each row also has, with probability 1/4, a jump at xi_0 ~ U(0.3, 0.7): right of it
density and pressure are multiplied by 4^U(-1, 1) each, and c_0 U(-1/2, 1/2) is added to the velocity: a Riemann
problem between states that are not constant. A periodic row has none.

Units: PDEBench's, without dimension; states are (density, velocity, pressure) at the cell centres.

Row i is a function of (seed, i) and the boundary alone: it has a counter-based generator of its own (Philox4x64,
Salmon et al. 2011) whose 128-bit key is the pair, as in `ups.physics.initial_conditions`.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ups.physics.compressible import Boundary
from ups.physics.rows import checked_rows, row_uniforms
from ups.problems.ideal_gas import GAMMA

MODES = 4
LARGEST_RELATIVE_AMPLITUDE = 0.5
LARGEST_MACH_PART = 0.35
JUMP_PROBABILITY = 0.25
JUMP_BEGIN = 0.3
JUMP_SPREAD = 0.4
LARGEST_JUMP_RATIO = 4.0
LARGEST_JUMP_MACH = 0.5

# What one row consumes: amplitudes and phases of three superpositions; two levels, four strengths; the jump's
# presence, place, two ratios and velocity.
_SUPERPOSITIONS = 3 * MODES
_UNIFORMS = 2 * _SUPERPOSITIONS + 6 + 5


def compressible_initial_states(
    rows: NDArray[np.integer] | Sequence[int], *, seed: int, resolution: int, boundary: Boundary
) -> NDArray[np.float64]:
    """The initial states of the given rows, [n, x, 3] float64: density, velocity, pressure.

    Args:
        rows: row numbers [n], not negative, in any order; equal numbers give equal states.
        seed: names the collection of rows; 0 <= seed < 2**64.
        resolution: number of cells, at least 2.
        boundary: "periodic", or "outflow", which has jumps.

    Raises:
        ValueError: an argument is out of its range.
    """
    row_numbers = checked_rows(rows, seed=seed, resolution=resolution)
    if boundary not in {"periodic", "outflow"}:
        raise ValueError(f'boundary must be "periodic" or "outflow", got {boundary!r}')

    uniform = row_uniforms(row_numbers, seed=seed, count=_UNIFORMS)
    amplitude, phase, background, jump = np.split(
        uniform, np.cumsum([_SUPERPOSITIONS, _SUPERPOSITIONS, 6]), axis=1
    )

    position = (np.arange(resolution) + 0.5) / resolution
    shape = (-1, 3, MODES)
    waves = _superpositions(position, amplitude.reshape(shape), 2.0 * np.pi * phase.reshape(shape))
    density_level, pressure_level = 2.0 ** (2.0 * background[:, :2].T - 1.0)
    density_wave, pressure_wave, drift, velocity_wave = background[:, 2:].T
    sound = np.sqrt(GAMMA * pressure_level / density_level)

    states = np.empty((row_numbers.size, resolution, 3))
    states[..., 0] = _column(density_level) * (
        1.0 + _column(LARGEST_RELATIVE_AMPLITUDE * density_wave) * waves[:, 0]
    )
    states[..., 1] = _column(sound) * (
        _column(LARGEST_MACH_PART * (2.0 * drift - 1.0))
        + _column(LARGEST_MACH_PART * velocity_wave) * waves[:, 1]
    )
    states[..., 2] = _column(pressure_level) * (
        1.0 + _column(LARGEST_RELATIVE_AMPLITUDE * pressure_wave) * waves[:, 2]
    )
    if boundary == "outflow":
        present, place, density_ratio, pressure_ratio, speed = jump.T
        beyond = position > _column(JUMP_BEGIN + JUMP_SPREAD * place)
        behind = beyond & _column(present < JUMP_PROBABILITY)
        states[..., 0] *= np.where(behind, _column(LARGEST_JUMP_RATIO ** (2.0 * density_ratio - 1.0)), 1.0)
        states[..., 1] += np.where(behind, _column(sound * LARGEST_JUMP_MACH * (2.0 * speed - 1.0)), 0.0)
        states[..., 2] *= np.where(behind, _column(LARGEST_JUMP_RATIO ** (2.0 * pressure_ratio - 1.0)), 1.0)
    return states


def _column(values: NDArray) -> NDArray:
    """[n] to [n, 1]: one value for all cells of a row."""
    return values[:, None]


def _superpositions(
    position: NDArray[np.float64], amplitude: NDArray[np.float64], phase: NDArray[np.float64]
) -> NDArray[np.float64]:
    """g of the module's docstring, [n, 3, x], from amplitudes and phases [n, 3, modes]."""
    total = np.zeros((*amplitude.shape[:2], len(position)))
    for mode in range(MODES):
        angle = 2.0 * np.pi * (mode + 1) * position + phase[..., mode, None]
        total += amplitude[..., mode, None] * np.sin(angle)
    return total / amplitude.sum(axis=-1)[..., None]
