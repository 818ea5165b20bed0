"""PDEBench's advection scheme against the scheme written out, genuine rows, and the exact shift."""

import numpy as np
import pytest
import torch
from test_advection import genuine_trajectories, initial_states, relative_error, upwind_scheme_written_out

from ups.errors import NotFiniteError
from ups.physics.advection import solve_advection
from ups.physics.upwind_advection import solve_upwind_advection


@pytest.mark.parametrize(("beta", "limit", "mean_limit"), [(0.1, 1e-5, 1.2e-3), (1.0, 1.5e-3, 5.6e-3)])
def test_reproduces_genuine_rows(genuine_data, beta, limit, mean_limit):
    reference, parameter = genuine_trajectories(genuine_data, beta)
    solved = solve_upwind_advection(reference[:, 0].double(), beta=parameter, frame_interval=0.01, frames=201)
    error = relative_error(solved, reference.double())
    assert error.max() < limit
    assert error.mean() < mean_limit


@pytest.mark.parametrize("beta", [0.1, 0.7, 4.0])
def test_equals_the_scheme_written_out(beta):
    initial = initial_states(6, 128, seed=3)
    solved = solve_upwind_advection(initial, beta=beta, frame_interval=0.05, frames=4)
    state = initial.numpy()
    for frame in range(1, 4):
        state = upwind_scheme_written_out(state, beta=beta, duration=0.05)
        np.testing.assert_allclose(solved[:, frame].numpy(), state, rtol=0, atol=1e-12)


def test_conserves_the_mean_and_creates_no_new_extrema():
    initial = initial_states(16, 200, seed=4)
    solved = solve_upwind_advection(initial, beta=1.0, frame_interval=0.1, frames=6)
    torch.testing.assert_close(
        solved.mean(dim=2), initial.mean(dim=1, keepdim=True).expand(-1, 6), rtol=0, atol=1e-13
    )
    assert (solved.amax(dim=2) <= initial.amax(dim=1, keepdim=True) + 1e-12).all()
    assert (solved.amin(dim=2) >= initial.amin(dim=1, keepdim=True) - 1e-12).all()


def test_converges_to_the_exact_shift_of_smooth_states():
    errors = []
    for cells in (64, 128, 256):
        x = (torch.arange(cells, dtype=torch.float64) + 0.5) / cells
        initial = torch.sin(2 * torch.pi * x)[None]
        exact = solve_advection(initial, beta=1.0, frame_interval=0.3, frames=2)[:, -1]
        solved = solve_upwind_advection(initial, beta=1.0, frame_interval=0.3, frames=2)[:, -1]
        errors.append(float((solved - exact).abs().mean()))
    assert errors[1] < 0.3 * errors[0], errors
    assert errors[2] < 0.3 * errors[1], errors


def test_a_row_does_not_depend_on_its_neighbours():
    initial = initial_states(5, 64)
    together = solve_upwind_advection(initial, beta=0.4, frame_interval=0.1, frames=3)
    single = solve_upwind_advection(initial[2:3], beta=0.4, frame_interval=0.1, frames=3)
    assert torch.equal(together[2:3], single)


@pytest.mark.parametrize("changes", [{"beta": 0.0}, {"beta": -1.0}, {"frame_interval": 0.0}, {"frames": 0}])
def test_arguments_out_of_range_are_refused(changes):
    arguments = {"beta": 1.0, "frame_interval": 0.1, "frames": 2} | changes
    with pytest.raises(ValueError, match="must be"):
        solve_upwind_advection(torch.zeros(1, 8), **arguments)


def test_a_state_that_is_not_finite_is_refused():
    with pytest.raises(NotFiniteError):
        solve_upwind_advection(torch.full((1, 8), torch.nan), beta=1.0, frame_interval=0.1, frames=2)
