"""Exact solution of the Riemann problem of an ideal gas: two constant states that meet at x = 0, t = 0.

A state is (density, velocity, pressure). The solution is a function of x/t: a wave to the left, a contact, a
wave to the right, each wave a shock or a rarefaction. Between the outer waves pressure and velocity are one pair
(p*, v*), and p* is the root of

    f_left(p) + f_right(p) + v_right - v_left = 0

with f of a shock where p exceeds the pressure of its side and of a rarefaction elsewhere. The sum rises
monotonically and is concave: Newton's method comes below the root with its first step and rises to it from there.

Units: any consistent ones.

Source: Toro, Riemann Solvers and Numerical Methods for Fluid Dynamics (3rd ed. 2009), chapter 4, equations 4.5 to
4.68. Used by tests and by the check of generated data; the solver's own flux (HLLC) is approximate.
"""

import math

import numpy as np
from numpy.typing import NDArray

State = tuple[float, float, float]
"""(density, velocity, pressure)."""

_MOST_ITERATIONS = 200


def solve_riemann(
    left: State, right: State, similarity: NDArray[np.float64], *, gamma: float = 5.0 / 3.0
) -> NDArray[np.float64]:
    """The states at x/t = `similarity` [...], as [..., 3] (density, velocity, pressure).

    Raises:
        ValueError: density or pressure is not positive, or the states part so fast that a vacuum opens.
    """
    pressure, velocity = star_state(left, right, gamma=gamma)
    similarity = np.asarray(similarity, dtype=np.float64)
    # The right wave is the left wave of the mirrored problem.
    mirrored_right = (right[0], -right[1], right[2])
    on_left = _left_wave(left, pressure, velocity, similarity, gamma)
    on_right = _left_wave(mirrored_right, pressure, -velocity, -similarity, gamma) * (1.0, -1.0, 1.0)
    return np.where((similarity < velocity)[..., None], on_left, on_right)


def star_state(left: State, right: State, *, gamma: float = 5.0 / 3.0) -> tuple[float, float]:
    """(pressure, velocity) between the two outer waves.

    Raises:
        ValueError: as `solve_riemann`.
    """
    for density, _, pressure in (left, right):
        if not (density > 0 and pressure > 0):
            raise ValueError(f"density and pressure must be positive, got {density} and {pressure}")
    sound = [math.sqrt(gamma * pressure / density) for density, _, pressure in (left, right)]
    parting = right[1] - left[1]
    if not 2.0 / (gamma - 1.0) * sum(sound) > parting:
        raise ValueError(f"a vacuum opens between {left} and {right}")

    # From where two rarefactions would meet (Toro 4.46): the root itself if both waves are, else above it.
    exponent = (gamma - 1.0) / (2.0 * gamma)
    scale = sum(c / state[2] ** exponent for c, state in zip(sound, (left, right), strict=True))
    pressure = ((sum(sound) - 0.5 * (gamma - 1.0) * parting) / scale) ** (1.0 / exponent)
    for _ in range(_MOST_ITERATIONS):
        sides = [_jump(pressure, state, gamma) for state in (left, right)]
        change = (sum(value for value, _ in sides) + parting) / sum(slope for _, slope in sides)
        pressure = max(pressure - change, 0.5 * pressure)
        if abs(change) <= 1e-15 * pressure:
            break
    (to_left, _), (to_right, _) = (_jump(pressure, state, gamma) for state in (left, right))
    return pressure, 0.5 * (left[1] + right[1] + to_right - to_left)


def _jump(pressure: float, state: State, gamma: float) -> tuple[float, float]:
    """f(p) of one side, the change of velocity across its wave, and its derivative (Toro 4.6, 4.7, 4.37)."""
    density, _, own = state
    if pressure > own:
        a, b = 2.0 / ((gamma + 1.0) * density), (gamma - 1.0) / (gamma + 1.0) * own
        root = math.sqrt(a / (pressure + b))
        return (pressure - own) * root, root * (1.0 - 0.5 * (pressure - own) / (pressure + b))
    sound = math.sqrt(gamma * own / density)
    exponent = (gamma - 1.0) / (2.0 * gamma)
    value = 2.0 * sound / (gamma - 1.0) * ((pressure / own) ** exponent - 1.0)
    return value, (pressure / own) ** (exponent - 1.0) * sound / (gamma * own)


def _left_wave(
    state: State, pressure: float, velocity: float, similarity: NDArray[np.float64], gamma: float
) -> NDArray[np.float64]:
    """The solution left of the contact, [..., 3], whatever is asked for right of it (Toro 4.50 to 4.58)."""
    density, own_velocity, own = state
    sound = math.sqrt(gamma * own / density)
    ratio = pressure / own
    if pressure > own:
        g = (gamma - 1.0) / (gamma + 1.0)
        speed = own_velocity - sound * math.sqrt(((gamma + 1.0) * ratio + gamma - 1.0) / (2.0 * gamma))
        behind = (density * (ratio + g) / (g * ratio + 1.0), velocity, pressure)
        return np.where((similarity < speed)[..., None], state, behind)
    behind = (density * ratio ** (1.0 / gamma), velocity, pressure)
    head = own_velocity - sound
    tail = velocity - sound * ratio ** ((gamma - 1.0) / (2.0 * gamma))
    # Inside the fan; clipped to it, so that the powers below are taken of positive numbers.
    at = np.clip(similarity, head, tail)
    local_sound = 2.0 / (gamma + 1.0) * (sound + 0.5 * (gamma - 1.0) * (own_velocity - at))
    fan = np.stack(
        [
            density * (local_sound / sound) ** (2.0 / (gamma - 1.0)),
            at + local_sound,
            own * (local_sound / sound) ** (2.0 * gamma / (gamma - 1.0)),
        ],
        axis=-1,
    )
    inside = np.where((similarity < head)[..., None], state, fan)
    return np.where((similarity > tail)[..., None], behind, inside)
