"""What is found in nights that are made up: how often noise is called a change, and how often a change is found."""

import math
import random
import statistics

import pytest

from ups.pipeline.nightly.judge import LEAST_NIGHTS, RECENT, TRAILING, Judgement, Measurement, judge

STEP = Measurement("step", "training", 0.05, "a ratio")
NOISE = 0.02  # standard deviation between nights, of a night's median


def nights(*values: float, verdict: str = "as before") -> list[dict]:
    return [{"measurements": {"step": {"value": value}}, "verdict": {"step": verdict}} for value in values]


def judged_twice(history: list[dict], draw) -> Judgement:
    """As `run_night` does: what looks worse is measured again, and all repeats count together."""
    value = draw()
    first = judge(STEP, value, history)
    return judge(STEP, statistics.fmean([value, draw()]), history) if first.status == "worse" else first


def series(seed: int, length: int, change=lambda night: 0.0, noise: float = NOISE) -> list[Judgement]:
    """Night after night, each judged by those before; change: of the logarithm, by night."""
    generator = random.Random(seed)
    history: list[dict] = []
    found = []
    for night in range(length):

        def draw(night: int = night) -> float:
            return math.exp(generator.gauss(change(night), noise))

        judgement = judged_twice(history, draw)
        found.append(judgement)
        history += nights(judgement.value, verdict=judgement.status)
    return found


def test_too_few_nights_are_no_verdict():
    history = nights(*[1.0] * (LEAST_NIGHTS - 1))
    assert judge(STEP, 9.0, history).status == "too few nights"
    assert judge(STEP, 9.0, history + nights(1.0)).status == "worse"


def test_what_repeats_exactly_may_change_by_its_tolerance():
    history = nights(*[2.0] * TRAILING)
    for value, status in ((2.09, "as before"), (2.11, "worse"), (1.91, "as before"), (1.89, "better")):
        judgement = judge(STEP, value, history)
        assert judgement.status == status, value
        assert judgement.change == pytest.approx(value / 2 - 1)
        assert judgement.band == pytest.approx((2 / 1.05, 2 * 1.05))


def test_a_noisy_measurement_has_a_wide_band_that_one_bad_night_does_not_move():
    values = [1.0, 1.1, 0.9, 1.05, 0.95, 1.08, 0.92, 1.0, 1.02]
    band = judge(STEP, 1.0, nights(*values)).band
    disturbed = judge(STEP, 1.0, nights(*values[:-1], 50.0)).band
    assert band is not None
    assert disturbed is not None
    assert band[1] > 1.15
    assert disturbed == pytest.approx(band, rel=0.15)


def test_a_step_stays_found_and_says_which_night_was_the_last_right_one():
    history = nights(*[1.0] * 10) + nights(*[1.3] * 30, verdict="worse")
    judgement = judge(STEP, 1.3, history)
    assert (judgement.status, judgement.expected, judgement.since) == ("worse", 1.0, 9)


@pytest.mark.parametrize(("noise", "wrong"), [(NOISE, 6), (0.05, 25)])
def test_noise_is_hardly_ever_called_a_change(noise: float, wrong: int):
    """60 measurements of 60 nights: of 3,200 verdicts few are wrong. At 2 % tolerance and band, at 5 % the band alone decides."""
    found = [judgement for seed in range(60) for judgement in series(seed, 60, noise=noise)]
    verdicts = [judgement for judgement in found if judgement.status != "too few nights"]
    assert len(verdicts) > 3000
    assert sum(judgement.worse for judgement in verdicts) <= wrong


@pytest.mark.parametrize(
    ("nights_before", "first_night", "three_nights"), [(LEAST_NIGHTS, 150, 175), (TRAILING, 165, 190)]
)
def test_a_change_of_ten_per_cent_is_found_in_noise_of_two(nights_before, first_night, three_nights):
    """In most of 200 cases the first night, in nearly all within three."""
    first = three = 0
    for seed in range(200):
        found = series(seed, nights_before + 3, lambda night: math.log(1.1) * (night >= nights_before))
        worse = [judgement.worse for judgement in found[nights_before:]]
        first += worse[0]
        three += any(worse)
    assert first >= first_night
    assert three >= three_nights


def test_a_slow_drift_is_found_though_no_night_is_a_step():
    """0.15 % a night, in noise of 1 %: it takes two months."""
    drifts = 0
    for seed in range(20):
        found = series(seed, 90, lambda night: 0.0015 * night, noise=0.01)
        at = next(night for night, judgement in enumerate(found) if judgement.worse)
        assert at >= TRAILING + RECENT - 1
        if found[at].status == "drifted":
            assert found[at].since == TRAILING - 1
            drifts += 1
    assert drifts >= 18
