"""Time at equal error and the break-even number of solves, in closed form."""

import pytest

from ups.benchmarks.break_even import EqualError, Point, at_equal_error, break_even, pareto

# A second-order scheme on a line: half the cell takes four times as long, for a quarter of the error.
SECOND_ORDER = [Point(error=cells**-2, seconds=1e-6 * cells**2) for cells in (8, 16, 32)]


@pytest.mark.parametrize("cells", [8, 11.3, 16, 20, 32])
def test_between_grids_the_time_is_that_of_the_power_law(cells):
    equal = at_equal_error(SECOND_ORDER, cells**-2)
    assert equal.seconds == pytest.approx(1e-6 * cells**2)
    assert equal.bound == ""


def test_nothing_is_extrapolated():
    assert at_equal_error(SECOND_ORDER, 0.9 * 32**-2) == EqualError(1e-6 * 32**2, "at least")
    assert at_equal_error(SECOND_ORDER, 1.1 * 8**-2) == EqualError(1e-6 * 8**2, "at most")
    with pytest.raises(ValueError, match="without points"):
        at_equal_error([], 0.1)


def test_a_grid_that_another_beats_in_both_is_no_part_of_the_curve():
    """A batch of few cells may take longer than one of more."""
    slow = Point(error=0.5, seconds=1.0)
    assert at_equal_error([slow, *SECOND_ORDER], 1 / 256) == at_equal_error(SECOND_ORDER, 1 / 256)
    assert pareto([slow, *reversed(SECOND_ORDER)]) == SECOND_ORDER
    assert pareto([Point(0.1, 1.0), Point(0.1, 2.0), Point(0.2, 1.0)]) == [Point(0.1, 1.0)]


def test_what_was_invested_is_paid_back_by_what_each_solve_saves():
    assert break_even(100.0, solver=0.5, model=0.25) == 400
    assert break_even(100.5, solver=0.5, model=0.25) == 402  # whole trajectories
    assert break_even(0.0, solver=0.5, model=0.25) == 0
    assert break_even(100.0, solver=0.25, model=0.25) is None
    assert break_even(0.0, solver=0.1, model=0.25) is None
