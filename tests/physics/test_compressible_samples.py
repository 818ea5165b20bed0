"""The distribution of compressible initial states: its bounds, its jumps, its keys."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ups.physics.compressible_samples import compressible_initial_states

GAMMA = 5 / 3
PINNED = [
    [0.3656734514368126, -0.6824720547077433, 0.7271423907079867],
    [2.474730079396249, -0.7616386910911702, 2.359049559311254],
]


def mach(states: np.ndarray) -> np.ndarray:
    density, velocity, pressure = np.moveaxis(states, -1, 0)
    return np.abs(velocity) / np.sqrt(GAMMA * pressure / density)


def test_periodic_rows_are_smooth_and_within_their_bounds():
    states = compressible_initial_states(range(2000), seed=5, resolution=128, boundary="periodic")
    assert 0.25 <= states[..., [0, 2]].min() < 0.4
    assert 2.5 < states[..., [0, 2]].max() <= 3.0
    assert mach(states).max() < 1.22
    assert mach(states).max(axis=1).max() > 0.6
    assert (mach(states).max(axis=1) > 1).mean() < 0.01
    # Four modes and no more, on either side of the seam.
    spectrum = np.abs(np.fft.rfft(states, axis=1))
    assert spectrum[:, 5:].max() < 1e-10
    assert (np.median(spectrum[:, 1:5], axis=0) > 0.5).all()  # all four, in all three variables
    assert states[..., 1].mean(axis=1).std() > 0.1  # winds blow both ways
    assert abs(states[..., 1].mean()) < 0.02


def test_a_quarter_of_the_outflow_rows_jump():
    rows, cells = 2000, 256
    smooth = compressible_initial_states(range(rows), seed=5, resolution=cells, boundary="periodic")
    states = compressible_initial_states(range(rows), seed=5, resolution=cells, boundary="outflow")
    changed = np.any(states != smooth, axis=-1)
    jumping = changed.any(axis=1)
    assert jumping.mean() == pytest.approx(0.25, abs=0.04)
    begin = changed[jumping].argmax(axis=1) / cells
    assert 0.29 < begin.min() < 0.32
    assert 0.68 < begin.max() < 0.71
    assert changed[jumping, -1].all()
    ratio = (states / smooth)[jumping, -1][:, [0, 2]]
    assert 0.25 <= ratio.min() < 0.3
    assert 3.5 < ratio.max() <= 4.0
    assert np.median(ratio) == pytest.approx(1.0, abs=0.1)
    assert states[..., [0, 2]].min() > 1 / 16


def test_a_coarse_grid_samples_the_same_functions():
    coarse = compressible_initial_states([3, 4], seed=1, resolution=15, boundary="periodic")
    fine = compressible_initial_states([3, 4], seed=1, resolution=45, boundary="periodic")
    np.testing.assert_allclose(fine[:, 1::3], coarse, rtol=1e-12)


@settings(max_examples=30, deadline=None)
@given(
    rows=st.lists(st.integers(0, 2**62), min_size=1, max_size=6),
    seed=st.integers(0, 2**64 - 1),
    boundary=st.sampled_from(["periodic", "outflow"]),
)
def test_a_row_is_a_function_of_seed_and_number(rows, seed, boundary):
    arguments = {"seed": seed, "resolution": 16, "boundary": boundary}
    together = compressible_initial_states(rows, **arguments)
    apart = [compressible_initial_states([row], **arguments)[0] for row in rows]
    assert np.array_equal(together, np.stack(apart))


def test_values_are_pinned():
    """Rows already on disk must stay reproducible: a change here makes another data set."""
    values = compressible_initial_states([0, 123_456], seed=2022, resolution=8, boundary="outflow")
    np.testing.assert_allclose(values[:, 5], PINNED, rtol=0, atol=1e-12)


def test_no_rows():
    assert compressible_initial_states([], seed=0, resolution=16, boundary="outflow").shape == (0, 16, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": [-1]}, "rows must not be negative"),
        ({"rows": [0.5]}, "rows must be integers"),
        ({"seed": -1}, "seed must be"),
        ({"resolution": 1}, "resolution must be"),
        ({"boundary": "trans"}, "boundary must be"),
    ],
)
def test_arguments_out_of_range_are_named(change, message):
    arguments = {"rows": [0], "seed": 0, "resolution": 16, "boundary": "periodic"} | change
    with pytest.raises(ValueError, match=message):
        compressible_initial_states(**arguments)
