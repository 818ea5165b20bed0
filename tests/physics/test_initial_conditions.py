"""The distribution of the initial states: its documented statistics, its closed form, its keys."""

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ups.physics.initial_conditions import (
    cell_centres,
    sinusoid_superposition,
    sinusoidal_initial_conditions,
)

WAVENUMBERS = (1, 2, 3, 4, 6, 8)
ROWS = 10_000
RESOLUTION = 256
PINNED = [[5.641395722402218e-07, 0.1772975083779652], [-0.2433653937289675, 0.9154435941858111]]


@pytest.fixture(scope="module")
def states() -> np.ndarray:
    return sinusoidal_initial_conditions(np.arange(ROWS), seed=11, resolution=RESOLUTION)


@pytest.fixture(scope="module")
def windowed(states) -> np.ndarray:
    """Rows that vanish far to the right of any window, which no sum of sines does."""
    x = cell_centres(RESOLUTION)
    return np.abs(states[:, (x > 0.68) & (x < 0.98)]).max(axis=1) < 1e-6


def fitted(states: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Least squares over the allowed wavenumbers: offset [n], amplitude [n, 6], largest residual [n]."""
    x = cell_centres(states.shape[1])
    angle = 2 * np.pi * x[:, None] * WAVENUMBERS / (x[-1] - x[0])
    basis = np.column_stack([np.ones_like(x), np.sin(angle), np.cos(angle)])
    coefficients, *_ = np.linalg.lstsq(basis, states.T, rcond=None)
    residual = np.abs(basis @ coefficients - states.T).max(axis=0)
    return coefficients[0], np.hypot(coefficients[1:7], coefficients[7:]).T, residual


def test_statistics_of_pdebench(states):
    # The documented values were measured on one draw of 10,000; tolerances are about four standard errors
    # of the difference of two such draws.
    assert np.median(np.sqrt((states**2).mean(axis=1))) == pytest.approx(0.704, abs=0.015)
    assert np.median(np.abs(states).max(axis=1)) == pytest.approx(1.27, abs=0.03)
    assert states.mean(axis=1).std() == pytest.approx(0.60, abs=0.02)
    assert abs(states.mean()) < 0.03
    assert 3.0 < np.abs(states).max() < 4.0


def test_modes_of_the_plain_rows(states):
    offset, amplitude, residual = fitted(states)
    plain = residual < 1e-9
    assert plain.mean() == pytest.approx(0.85, abs=0.02)  # neither a window nor an |u| that changed anything
    active = amplitude[plain] > 1e-6
    counts = active.sum(axis=1)
    assert set(counts.tolist()) == {1, 2}
    assert (counts == 1).mean() == pytest.approx(0.25, abs=0.02)  # both draws agreed
    once, twice = active[counts == 2], active[counts == 1]
    assert not once[:, [4, 5]].any()  # 6 and 8 come only from a mode drawn twice ...
    assert not twice[:, [0, 2]].any()  # ... which never gives 1 or 3
    np.testing.assert_allclose(twice[:, [1, 3, 4, 5]].mean(axis=0), 0.25, atol=0.04)
    np.testing.assert_allclose(once[:, :4].mean(axis=0), 0.5, atol=0.03)
    assert offset.std() == pytest.approx(0.615, abs=0.02)
    # A ~ U(0, 1) for every active mode, drawn once or twice.
    drawn = np.sort(amplitude[plain][active])
    uniform = (np.arange(len(drawn)) + 0.5) / len(drawn)
    assert np.abs(drawn - uniform).max() < 0.02


def test_windows_begin_where_the_reused_random_number_puts_them(states, windowed):
    assert windowed.mean() == pytest.approx(0.1, abs=0.012)
    x = cell_centres(RESOLUTION)
    outside = np.abs(states[windowed][:, (x < 0.04) | (x > 0.65)])
    assert outside.max() < 1e-4
    # At 0.02 inside the latest begin and the earliest end the window is above 0.98 for every row, so that
    # between those points the rows are plain: sines fit there.
    inside = (x > 0.19) & (x < 0.5)
    angle = 2 * np.pi * x[inside, None] * WAVENUMBERS / (x[-1] - x[0])
    basis = np.column_stack([np.ones(inside.sum()), np.sin(angle), np.cos(angle)])
    inner = states[windowed][:, inside].T
    coefficients, *_ = np.linalg.lstsq(basis, inner, rcond=None)
    residual = np.abs(basis @ coefficients - inner).max(axis=0)
    assert (residual < 1e-3).mean() > 0.85  # all but those that are absolute values too


def test_absolute_values_have_one_sign(states, windowed):
    _, _, residual = fitted(states)
    absolute = states[~windowed & (residual >= 1e-9)]
    assert 0.03 < len(absolute) / ROWS < 0.09
    nonnegative = (absolute >= 0).all(axis=1)
    nonpositive = (absolute <= 0).all(axis=1)
    assert (nonnegative | nonpositive).all()
    assert nonnegative.mean() == pytest.approx(0.5, abs=0.1)  # the random sign comes after


def test_first_and_last_cell_agree(states, windowed):
    # L = x[-1] - x[0] is the period of every wavenumber.
    np.testing.assert_allclose(states[~windowed, 0], states[~windowed, -1], rtol=0, atol=1e-12)


def test_closed_form_holds_for_genuine_rows(genuine_data):
    with h5py.File(genuine_data / "1D_Burgers_Sols_Nu0.01.rows4.hdf5", "r") as file:
        states = file["tensor"][:, 0].astype(np.float64)
    _, amplitude, residual = fitted(states)
    plain = residual <= 1e-5
    assert plain.sum() == 3
    assert (amplitude[plain] > 1e-5).sum(axis=1).tolist() == [2, 2, 1]
    assert (states[~plain] >= 0).all()  # the fourth is an absolute value


def test_superposition_is_the_formula():
    x = cell_centres(7)
    value = sinusoid_superposition(
        x,
        amplitudes=np.array([[0.5, 2.0]]),
        phases=np.array([[0.1, 0.2]]),
        wavenumbers=np.array([[3, 0]]),
    )
    expected = 0.5 * np.sin(2 * np.pi * 3 * x / (6 / 7) + 0.1) + 2.0 * np.sin(0.2)
    np.testing.assert_allclose(value, expected[None], rtol=0, atol=1e-14)


@settings(max_examples=50, deadline=None)
@given(
    rows=st.lists(st.integers(0, 2**62), min_size=1, max_size=8),
    seed=st.integers(0, 2**64 - 1),
    cut=st.integers(0, 8),
)
def test_a_row_is_a_function_of_seed_and_number(rows, seed, cut):
    together = sinusoidal_initial_conditions(rows, seed=seed, resolution=32)
    pieces = [
        sinusoidal_initial_conditions(part, seed=seed, resolution=32) for part in (rows[:cut], rows[cut:])
    ]
    assert np.array_equal(together, np.concatenate(pieces))
    assert np.array_equal(together[::-1], sinusoidal_initial_conditions(rows[::-1], seed=seed, resolution=32))


def test_rows_and_seeds_differ():
    by_row = sinusoidal_initial_conditions(np.arange(50), seed=1, resolution=32)
    by_seed = np.concatenate(
        [sinusoidal_initial_conditions([0], seed=seed, resolution=32) for seed in range(50)]
    )
    everything = np.concatenate([by_row, by_seed])  # (seed 1, row 0) is in both
    assert len(np.unique(everything.round(9), axis=0)) == 99
    swapped = sinusoidal_initial_conditions([1], seed=0, resolution=32)
    assert not np.allclose(swapped, by_row[:1])  # the key is an ordered pair: (0, 1) is not (1, 0)


def test_values_are_pinned():
    """Rows already on disk must stay reproducible: a change here makes another data set."""
    values = sinusoidal_initial_conditions([0, 123_456], seed=2022, resolution=8)
    np.testing.assert_allclose(values[:, [0, 3]], PINNED, rtol=0, atol=1e-12)


def test_no_rows():
    assert sinusoidal_initial_conditions([], seed=0, resolution=16).shape == (0, 16)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rows": [-1]}, "rows must not be negative"),
        ({"rows": [0.5]}, "rows must be integers"),
        ({"rows": [[1]]}, "rows must be integers"),
        ({"seed": -1}, "seed must be"),
        ({"seed": 2**64}, "seed must be"),
        ({"resolution": 1}, "resolution must be"),
    ],
)
def test_arguments_out_of_range_are_named(arguments, message):
    arguments = {"rows": [0], "seed": 0, "resolution": 16} | arguments
    with pytest.raises(ValueError, match=message):
        sinusoidal_initial_conditions(**arguments)
