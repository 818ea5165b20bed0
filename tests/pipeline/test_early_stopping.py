"""Early stopping, with answers that are known."""

import math

import pytest

from ups.config.sweep import Median, SuccessiveHalving
from ups.pipeline.sweeps.early_stopping import is_behind, lowest, promoted

CURVES = {
    "a": [(10, 0.9), (20, 0.5), (30, 0.4)],
    "b": [(10, 0.8), (20, 0.6), (30, 0.5)],
    "c": [(10, 0.7), (20, 0.7), (30, 0.6)],
}


@pytest.mark.parametrize(
    ("own", "ended"),
    [
        ([(10, 0.81)], True),  # the median of 0.9, 0.8, 0.7 is 0.8
        ([(10, 0.8)], False),
        ([(10, 0.79)], False),
        ([(10, 0.95), (20, 0.61)], True),  # of 0.5, 0.6, 0.7 it is 0.6
        ([(10, 0.95), (20, 0.59)], False),
        ([(10, 0.55), (20, 0.9)], False),  # one bad validation ends nothing
        ([(10, math.inf)], True),
    ],
)
def test_a_training_above_the_median_of_the_others_at_the_same_step_is_ended(own, ended):
    assert is_behind(own, CURVES.values(), Median()) is ended


def test_those_that_have_not_come_as_far_do_not_count():
    others = [*CURVES.values(), [(10, 0.1)], [(10, 0.1)], []]
    assert is_behind([(10, 0.5), (20, 0.61)], others, Median()) is False, "0.5 is below 0.6"
    assert is_behind([(10, 0.9), (20, 0.61)], others, Median()) is True
    assert is_behind([(10, 0.9), (20, 0.61)], others, Median(others=4)) is False, "only three are at step 20"
    assert is_behind([(10, 0.9), (20, 0.61)], others, Median(begin=21)) is False


def test_the_lowest_error_up_to_a_step():
    assert lowest(CURVES["c"], 20) == 0.7
    assert lowest([(10, 0.3), (20, 0.7)], 20) == 0.3
    assert lowest(CURVES["a"], 31) is None
    assert lowest([], 1) is None


def test_successive_halving_promotes_the_best_of_one_in_factor():
    errors = {"a": 0.5, "b": 0.1, "c": math.inf, "d": 0.3, "e": 0.1, "f": 0.2, "g": 0.9, "h": 0.8, "i": 0.7}
    assert promoted(errors, 3) == ["b", "e", "f"]
    assert promoted({name: errors[name] for name in ("b", "e", "f")}, 3) == ["b"], "of equals, the earlier"
    assert promoted({"a": 0.5, "b": 0.4}, 3) == ["b"], "at least one"


def test_its_steps_are_below_those_of_the_training():
    assert SuccessiveHalving(first=100, factor=3).steps(1000) == [100, 300, 900]
    assert SuccessiveHalving(first=100, factor=3).steps(900) == [100, 300]
