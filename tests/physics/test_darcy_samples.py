"""The distribution of Darcy coefficients and initial states: definition, statistics, genuine rows, keys."""

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ups.physics import darcy_samples
from ups.physics.darcy import relax_darcy, solve_darcy_steady
from ups.physics.darcy_samples import darcy_coefficients, darcy_initial_states
from ups.physics.rows import row_uniforms

ROWS = 600
RESOLUTION = 64
PINNED_COEFFICIENT = ["000000000011000110011000111000011000", "111111111111011110000000000000000000"]
PINNED_STATE = [[5.11750442512891, 5.184223545827567], [1.9646299860746523, 2.4785479216490263]]


@pytest.fixture(scope="module")
def coefficients() -> np.ndarray:
    return darcy_coefficients(np.arange(ROWS), seed=11, resolution=RESOLUTION)


@pytest.fixture(scope="module")
def states() -> np.ndarray:
    return darcy_initial_states(np.arange(ROWS), seed=11, resolution=RESOLUTION)


def interface_length(coefficient: np.ndarray) -> np.ndarray:
    """Faces between different cells, in domain lengths, per row."""
    faces = sum((np.diff(coefficient, axis=axis) != 0).sum(axis=(1, 2)) for axis in (1, 2))
    return faces / coefficient.shape[1]


def ragged_cells(coefficient: np.ndarray) -> np.ndarray:
    """Cells that differ from at least three neighbours, per row: none where the interface is smooth."""
    different = np.zeros(coefficient.shape, dtype=int)
    for axis in (1, 2):
        jump = np.diff(coefficient, axis=axis) != 0
        before, after = [(0, 0)] * 3, [(0, 0)] * 3
        before[axis], after[axis] = (0, 1), (1, 0)
        different += np.pad(jump, before).astype(int) + np.pad(jump, after)
    return (different >= 3).sum(axis=(1, 2))


def roughness(fields: np.ndarray) -> np.ndarray:
    """Largest jump between neighbouring cells relative to the field's range, per row."""
    jumps = np.maximum(*(np.abs(np.diff(fields, axis=axis)).max(axis=(1, 2)) for axis in (1, 2)))
    return jumps / np.ptp(fields, axis=(1, 2))


# --- coefficients


def test_coefficients_take_two_values(coefficients):
    assert coefficients.dtype == np.float64
    assert set(np.unique(coefficients)) == {0.1, 1.0}


def test_coefficients_are_the_definition():
    """Rows 200 to 219 written out: their Gaussians, and the mean over rows 200 to 399."""
    resolution, seed = 48, 5
    x = (np.arange(resolution) + 0.5) / resolution

    def sum_of_gaussians(row: int) -> np.ndarray:
        philox = np.random.Philox(key=np.array([seed, row], dtype=np.uint64), counter=[0, 0, 0, 1])
        centre_x, centre_y, width = np.random.Generator(philox).random(15).reshape(3, 5)
        total = np.zeros((resolution, resolution))
        for g in range(5):
            squared = (x[:, None] - centre_x[g]) ** 2 + (x[None, :] - centre_y[g]) ** 2
            total += np.exp(-squared / (0.5 * (1 - width[g])))
        return total

    sums = np.stack([sum_of_gaussians(row) for row in range(400)])
    own_level, other_level = sums[200:].mean(), sums[:200].mean()
    expected = np.where(sums[200:220] > own_level, 1.0, 0.1)
    assert not np.array_equal(expected, np.where(sums[200:220] > other_level, 1.0, 0.1))
    ours = darcy_coefficients(np.arange(200, 220), seed=seed, resolution=resolution)
    assert np.array_equal(ours, expected)


def test_share_of_high_coefficient(coefficients):
    share = (coefficients == 1).mean(axis=(1, 2))
    # Half of a block's cells exceed the block's mean, nearly; the rows of a block differ widely.
    assert share.mean() == pytest.approx(0.49, abs=0.04)
    assert share.std() == pytest.approx(0.22, abs=0.03)
    assert share.min() < 0.05
    assert share.max() > 0.85


def test_interfaces_are_as_smooth_as_genuine_ones(genuine_data, coefficients):
    with h5py.File(genuine_data / "2D_DarcyFlow_beta1.0_Train.rows2.hdf5", "r") as file:
        genuine = file["nu"][:].astype(np.float64)
    ours = darcy_coefficients(np.arange(100), seed=3, resolution=128)
    np.testing.assert_allclose(np.unique(genuine), [0.1, 1.0], rtol=1e-6)
    low, high = np.quantile((ours == 1).mean(axis=(1, 2)), [0.02, 0.98])
    assert ((low < (genuine > 0.5).mean(axis=(1, 2))) & ((genuine > 0.5).mean(axis=(1, 2)) < high)).all()
    # Genuine rows: 2.6 and 3.2 domain lengths of interface, no ragged cell.
    low, high = np.quantile(interface_length(ours), [0.02, 0.98])
    assert ((low < interface_length(genuine)) & (interface_length(genuine) < high)).all()
    assert ragged_cells(genuine).max() == 0
    assert ragged_cells(ours).mean() < 0.5
    assert ragged_cells((np.random.default_rng(0).random((1, 128, 128)) > 0.5).astype(float)).mean() > 1000


def test_a_finer_grid_samples_the_same_coefficient():
    coarse = darcy_coefficients(np.arange(50), seed=2, resolution=32)
    fine = darcy_coefficients(np.arange(50), seed=2, resolution=96)  # every third centre is a coarse one
    # The levels differ by their quadrature error, which moves a few cells.
    assert (fine[:, 1::3, 1::3] != coarse).mean() < 2e-3


# --- initial states


def test_range_of_the_states(states):
    assert states.dtype == np.float64
    assert states.min() >= 0.1
    assert states.max() <= 11.0


def test_offset_is_uniform_and_fields_have_unit_range(states):
    # A plain field has the range [0, 1]; a windowed one is 0 outside: the minimum is the offset either way.
    offset = np.sort(states.min(axis=(1, 2)))
    uniform = 0.1 + 9.9 * (np.arange(ROWS) + 0.5) / ROWS
    assert np.abs(offset - uniform).max() < 9.9 * 1.63 / np.sqrt(ROWS)  # Kolmogorov and Smirnov, 1 %
    span = np.ptp(states, axis=(1, 2))
    plain = roughness(states) < 0.5
    assert span[plain].max() <= 1 + 1e-12
    assert (span > 1 - 1e-9).mean() > 0.45


def test_half_of_the_fields_are_windowed(states):
    # Right of 0.91 and left of 0.09 in either direction every window is shut.
    field = states - states.min(axis=(1, 2), keepdims=True)
    edge = np.concatenate([field[:, :3], field[:, -3:]], axis=1).max(axis=(1, 2))
    windowed = edge < 0.02
    assert windowed.mean() == pytest.approx(0.5, abs=0.08)
    open_share = (field[windowed] > 1e-3).mean(axis=(1, 2))
    # 0.45 x 0.45 and its edges; less where the field itself is near 0.
    assert np.median(open_share) == pytest.approx(0.45**2, abs=0.06)
    assert open_share.max() < 0.3


def test_plain_fields_are_smooth(states):
    field = states - states.min(axis=(1, 2), keepdims=True)
    plain = np.concatenate([field[:, :3], field[:, -3:]], axis=1).max(axis=(1, 2)) >= 0.02
    # Four waves of at most 3 periods along an axis: nothing above mode 3 of the periodic transform.
    spectrum = np.abs(np.fft.rfft2(field[plain]))
    highest = np.maximum(spectrum[:, 4:-3].max(axis=(1, 2)), spectrum[:, :, 4:].max(axis=(1, 2)))
    assert (highest / spectrum.max(axis=(1, 2))).max() < 1e-9
    assert (spectrum[:, 3, :4].max(axis=1) > 1e-3).mean() > 0.3  # and mode 3 does occur


def test_initial_states_leave_what_pdebench_ones_leave(coefficients, states):
    # Median relative L2 between the frame at 1.75 and the steady state, over 64 genuine rows: 0.198 at forcing
    # 0.01, 0.023 at 0.1. Were the offset windowed too, ours would be at 0.11 and 0.012.
    rows = 150
    a, initial = torch.from_numpy(coefficients[:rows, ::2, ::2]), torch.from_numpy(states[:rows, ::2, ::2])
    for forcing, documented in ((0.01, 0.198), (0.1, 0.023)):
        u = relax_darcy(a, initial, forcing=forcing)
        steady = solve_darcy_steady(a, forcing=forcing)
        distance = (u - steady).flatten(1).norm(dim=1) / u.flatten(1).norm(dim=1)
        assert float(distance.median()) == pytest.approx(documented, rel=0.4)


# --- keys


@settings(max_examples=30, deadline=None)
@given(
    rows=st.lists(st.integers(0, 2**62), min_size=1, max_size=6),
    seed=st.integers(0, 2**64 - 1),
    cut=st.integers(0, 6),
)
@pytest.mark.parametrize("sample", [darcy_coefficients, darcy_initial_states])
def test_a_row_is_a_function_of_seed_and_number(sample, rows, seed, cut):
    together = sample(rows, seed=seed, resolution=8)
    pieces = [sample(part, seed=seed, resolution=8) for part in (rows[:cut], rows[cut:])]
    assert np.array_equal(together, np.concatenate(pieces))
    darcy_samples._block_level.cache_clear()
    assert np.array_equal(together[::-1], sample(rows[::-1], seed=seed, resolution=8))


@pytest.mark.parametrize("sample", [darcy_coefficients, darcy_initial_states])
def test_rows_and_seeds_differ(sample):
    by_row = sample(np.arange(30), seed=1, resolution=32)
    by_seed = np.concatenate([sample([0], seed=seed, resolution=32) for seed in range(30)])
    everything = np.concatenate([by_row, by_seed]).reshape(60, -1)  # (seed 1, row 0) is in both
    assert len(np.unique(everything.round(9), axis=0)) == 59
    assert not np.allclose(sample([1], seed=0, resolution=32), by_row[:1])  # the key is an ordered pair


def test_coefficient_and_initial_state_of_a_row_are_independent(coefficients, states):
    # Drawn from one stream they would share numbers: the offset would be a function of the Gaussians. The bound
    # is four standard errors.
    share = (coefficients == 1).mean(axis=(1, 2))
    for statistic in (states.min(axis=(1, 2)), np.ptp(states, axis=(1, 2)), states.mean(axis=(1, 2))):
        assert abs(np.corrcoef(share, statistic)[0, 1]) < 4 / np.sqrt(ROWS)
    philox = np.random.Philox(key=np.array([11, 0], dtype=np.uint64))
    first = np.random.Generator(philox).random()  # the stream of the one-dimensional problems
    for stream in (1, 2):
        assert row_uniforms(np.array([0]), seed=11, stream=stream, count=1)[0, 0] != first


def test_values_are_pinned():
    """Rows already on disk must stay reproducible: a change here makes another data set."""
    coefficient = darcy_coefficients([0, 123_456], seed=2022, resolution=6)
    assert ["".join("01"[int(cell > 0.5)] for cell in row.flat) for row in coefficient] == PINNED_COEFFICIENT
    states = darcy_initial_states([0, 123_456], seed=2022, resolution=6)
    np.testing.assert_allclose(states[:, [0, 3], [0, 2]], PINNED_STATE, rtol=0, atol=1e-12)


@pytest.mark.parametrize("sample", [darcy_coefficients, darcy_initial_states])
def test_no_rows(sample):
    assert sample([], seed=0, resolution=16).shape == (0, 16, 16)


@pytest.mark.parametrize("sample", [darcy_coefficients, darcy_initial_states])
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
def test_arguments_out_of_range_are_named(sample, arguments, message):
    arguments = {"rows": [0], "seed": 0, "resolution": 16} | arguments
    with pytest.raises(ValueError, match=message):
        sample(**arguments)
