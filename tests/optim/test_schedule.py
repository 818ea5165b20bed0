"""The learning rate is a function of the step with the promised ends."""

from itertools import pairwise

import pytest

from ups.optim.schedule import learning_rate

SCHEDULE = {"steps": 100, "warmup": 10, "peak": 1e-3, "final": 1e-5}


def test_warm_up_moves_at_once_and_ends_at_the_peak():
    assert learning_rate(0, **SCHEDULE) == pytest.approx(1e-4, rel=1e-12)
    assert learning_rate(9, **SCHEDULE) == pytest.approx(1e-3, rel=1e-12)
    assert learning_rate(10, **SCHEDULE) == pytest.approx(1e-3, rel=1e-12)


def test_the_last_step_is_at_the_final_rate():
    assert learning_rate(99, **SCHEDULE) == pytest.approx(1e-5, rel=1e-9)


def test_without_warm_up_the_first_step_is_at_the_peak():
    assert learning_rate(0, steps=100, warmup=0, peak=1e-3, final=0.0) == 1e-3


def test_the_half_cosine_is_half_way_in_the_middle_and_never_rises():
    rates = [learning_rate(step, **(SCHEDULE | {"steps": 101})) for step in range(101)]
    assert rates[55] == pytest.approx((1e-3 + 1e-5) / 2, rel=1e-9)
    assert all(later < earlier for earlier, later in pairwise(rates[10:]))
