"""The learning rate is a function of the step with the promised ends."""

from itertools import pairwise

import pytest

from ups.config.training import SCHEDULES
from ups.training.schedules import learning_rate

SCHEDULE = {"steps": 100, "warmup": 10, "peak": 1e-3, "final": 1e-5, "schedule": {"kind": "cosine"}}


def test_warm_up_moves_at_once_and_ends_at_the_peak():
    assert learning_rate(0, **SCHEDULE) == pytest.approx(1e-4, rel=1e-12)
    assert learning_rate(9, **SCHEDULE) == pytest.approx(1e-3, rel=1e-12)
    assert learning_rate(10, **SCHEDULE) == pytest.approx(1e-3, rel=1e-12)


def test_the_last_step_is_at_the_final_rate():
    assert learning_rate(99, **SCHEDULE) == pytest.approx(1e-5, rel=1e-9)


def test_without_warm_up_the_first_step_is_at_the_peak():
    assert learning_rate(0, **(SCHEDULE | {"warmup": 0, "final": 0.0})) == 1e-3


@pytest.mark.parametrize("kind", SCHEDULES)
def test_every_schedule_goes_from_the_peak_to_the_final_rate_and_never_rises(kind):
    chosen = SCHEDULES[kind](kind=kind).model_dump()
    rates = [learning_rate(step, **(SCHEDULE | {"schedule": chosen})) for step in range(9, 100)]
    assert rates[0] == pytest.approx(1e-3, rel=1e-12)
    assert rates[-1] == pytest.approx(1e-5, rel=1e-9)
    assert all(later <= earlier for earlier, later in pairwise(rates))


def test_a_straight_line_is_straight():
    rates = [learning_rate(step, **(SCHEDULE | {"schedule": {"kind": "linear"}})) for step in (10, 40, 70)]
    assert rates[0] - rates[1] == pytest.approx(rates[1] - rates[2], rel=1e-9)


def test_the_half_cosine_is_half_way_in_the_middle_and_never_rises():
    rates = [learning_rate(step, **(SCHEDULE | {"steps": 101})) for step in range(101)]
    assert rates[55] == pytest.approx((1e-3 + 1e-5) / 2, rel=1e-9)
    assert all(later < earlier for earlier, later in pairwise(rates[10:]))


def test_a_plateau_holds_the_peak_and_then_falls_like_a_root():
    shape = {"kind": "warmup_stable_decay", "decay": 0.5}
    rates = [learning_rate(step, **(SCHEDULE | {"steps": 111, "schedule": shape})) for step in range(111)]
    assert set(rates[10:61]) == {1e-3}
    middle = rates[60 + 12]  # of fifty falling steps
    assert middle == pytest.approx(1e-5 + (1e-3 - 1e-5) * (1 - 0.24**0.5), rel=1e-9)
    assert rates[-1] == pytest.approx(1e-5, rel=1e-9)
