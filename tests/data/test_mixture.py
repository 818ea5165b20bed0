"""Whose turn it is: a function of seed, step and weights, in the promised shares, the same after any resume."""

import json
import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ups.data.mixture import Mixture
from ups.errors import NotFiniteError

THREE = ["a", "b", "c"]
WINDOWS = [100, 300, 600]


def mixture(sampling: str = "difficulty_weighted", **changes) -> Mixture:
    settings = {"problems": THREE, "windows": WINDOWS, "sampling": sampling, "seed": 0, "purpose": "operator"}
    settings |= changes
    return Mixture(settings.pop("problems"), settings.pop("windows"), **settings)


def turns(made: Mixture, steps: range) -> list[tuple[str, int]]:
    return [made.at(step) for step in steps]


def chi_square(names: list[str], shares: dict[str, float]) -> float:
    expected = {name: share * len(names) for name, share in shares.items()}
    return sum((names.count(name) - count) ** 2 / count for name, count in expected.items())


@pytest.mark.parametrize("sampling", ["balanced", "proportional", "difficulty_weighted"])
def test_the_order_in_which_steps_are_asked_for_does_not_matter(sampling):
    forwards = turns(mixture(sampling), range(60))
    assert turns(mixture(sampling), range(59, -1, -1)) == forwards[::-1]
    assert [mixture(sampling).at(step) for step in (17, 59, 0)] == [forwards[n] for n in (17, 59, 0)]


def test_seed_and_purpose_make_another_sequence():
    sequences = {
        tuple(name for name, _ in turns(mixture(seed=seed, purpose=purpose), range(40)))
        for seed in (0, 1)
        for purpose in ("operator", "diffusion")
    }
    assert len(sequences) == 4


@pytest.mark.parametrize(
    ("sampling", "shares"),
    [
        ("balanced", dict.fromkeys(THREE, 1 / 3)),
        ("proportional", {"a": 0.1, "b": 0.3, "c": 0.6}),
        ("difficulty_weighted", dict.fromkeys(THREE, 1 / 3)),
    ],
)
def test_problems_take_turns_in_the_promised_shares(sampling, shares):
    """Before a validation, difficulty is not known: all are equal."""
    names = [name for name, _ in turns(mixture(sampling), range(3000))]
    # chi-square with 2 degrees of freedom: 18.4 is exceeded once in 10,000
    assert chi_square(names, shares) < 18.4
    # One problem says nothing about the next: pairs are as frequent as the product of their shares.
    pairs = ["".join(pair) for pair in pairwise(names)]
    of_pairs = {x + y: shares[x] * shares[y] for x in THREE for y in THREE}
    assert chi_square(pairs, of_pairs) < 31.8  # 8 degrees of freedom, once in 10,000


def test_difficulty_is_half_even_and_half_in_proportion_to_the_smoothed_error():
    made = mixture()
    made.reweigh(10, {"a": 0.1, "b": 0.3, "c": 0.6})
    assert made.state()["weights"] == pytest.approx([1 / 6 + 0.05, 1 / 6 + 0.15, 1 / 6 + 0.3])
    made.reweigh(20, {"a": 0.3, "b": 0.3, "c": 0.0})
    # smoothed: 0.2, 0.3, 0.3
    assert made.state()["weights"] == pytest.approx([1 / 6 + 0.125, 1 / 6 + 0.1875, 1 / 6 + 0.1875])
    names = [name for name, _ in turns(made, range(20, 3020))]
    assert chi_square(names, dict(zip(THREE, made.state()["weights"], strict=True))) < 18.4


@given(errors=st.lists(st.floats(0, 1e6), min_size=3, max_size=3))
def test_no_problem_is_forgotten_whatever_the_errors(errors):
    made = mixture()
    made.reweigh(1, dict(zip(THREE, errors, strict=True)))
    weights = made.state()["weights"]
    assert sum(weights) == pytest.approx(1)
    assert min(weights) >= 1 / 6 - 1e-12
    order = np.argsort(errors, kind="stable")
    assert all(weights[low] <= weights[high] + 1e-12 for low, high in pairwise(order))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_error_that_is_not_finite_is_no_weight(value):
    made = mixture()
    before = made.state()
    with pytest.raises(NotFiniteError, match=r"b .*step 5"):
        made.reweigh(5, {"a": 0.1, "b": value, "c": 0.1})
    assert made.state() == before


@pytest.mark.parametrize("sampling", ["balanced", "proportional"])
def test_fixed_weights_are_fixed(sampling):
    made, unmoved = mixture(sampling), mixture(sampling)
    assert not unmoved.reweigh(7, {"a": 1.0, "b": 0.0, "c": 0.0})
    assert unmoved.state() == made.state()
    assert turns(unmoved, range(50)) == turns(made, range(50))


def test_what_lies_behind_the_present_weights_cannot_be_asked_for():
    made = mixture()
    made.reweigh(5, {"a": 1.0, "b": 0.0, "c": 0.0})
    with pytest.raises(ValueError, match="step 4 lies before 5"):
        made.at(4)


def test_what_was_drawn_ahead_does_not_bind():
    """A reader that looks ahead asks for steps which a validation then decides anew."""
    ahead, prompt = mixture(), mixture()
    turns(ahead, range(30))
    errors = {"a": 5.0, "b": 0.1, "c": 0.1}
    for made in (ahead, prompt):
        made.reweigh(12, errors)
    assert turns(ahead, range(12, 60)) == turns(prompt, range(12, 60))
    assert ahead.state() == prompt.state()


def test_one_problem_has_every_turn_and_needs_no_choice():
    made = mixture(problems=["only"], windows=[5])
    assert turns(made, range(4)) == [("only", n) for n in range(4)]
    assert made.at(10**12) == ("only", 10**12)
    assert not made.reweigh(3, {"only": 1.0})
    assert made.state() == mixture(problems=["only"], windows=[5]).state()


def play(
    made: Mixture, start: int, stop: int, validations: dict[int, dict[str, float]]
) -> list[tuple[str, int]]:
    """Steps as a training takes them: after step n - 1, validation n."""
    seen = []
    for step in range(start, stop):
        seen.append(made.at(step))
        if step + 1 in validations:
            made.reweigh(step + 1, validations[step + 1])
    return seen


ERRORS = st.fixed_dictionaries({name: st.floats(0.01, 10) for name in THREE})


@settings(deadline=None, max_examples=60)
@given(
    validations=st.dictionaries(st.integers(1, 40), ERRORS, max_size=6),
    killed=st.lists(st.integers(0, 40), max_size=3),
    sampling=st.sampled_from(["balanced", "proportional", "difficulty_weighted"]),
)
def test_resumed_from_its_state_at_any_step_it_goes_on_as_it_would_have(validations, killed, sampling):
    whole = play(mixture(sampling), 0, 41, validations)
    made, start, seen = mixture(sampling), 0, []
    for step in sorted(killed):
        seen += play(made, start, step, validations)
        saved = json.dumps(made.state())
        play(made, step, 41, validations)  # what it did before it was killed is lost
        made, start = mixture(sampling), step
        made.restore(json.loads(saved))
    seen += play(made, start, 41, validations)
    assert seen == whole
    # The second number counts the earlier batches of the same problem, over all changes of the weights.
    for step, (name, count) in enumerate(whole):
        assert count == [earlier for earlier, _ in whole[:step]].count(name)
