"""Whose turn it is: the problem of every batch, a function of (seed, step, weights).

Weights are fixed (`balanced`, `proportional`) or follow the validation error (`difficulty_weighted`). They
change only at a validation, from an error that is the same on all ranks, so all that a checkpoint must hold is
the weights, since when they hold, and how many batches each problem had until then.

Difficulty: half of the weight is shared out evenly, so that no problem is forgotten, and half in proportion to
the smoothed error, e <- (e + new) / 2. Rejected: weights by training loss (not comparable between problems, and
it rewards memorising) and by error alone (an unlearnable problem would take every batch).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ups.config.data import Sampling
from ups.errors import NotFiniteError
from ups.runtime.randomness import numpy_generator

_EVEN_SHARE = 0.5
_SMOOTHING = 0.5


@dataclass(frozen=True)
class MixtureState:
    """What a resumed run must know.

    Attributes:
        weights: probability of each problem.
        since: first step these weights count for.
        drawn: batches of each problem before that step.
        errors: smoothed validation error of each problem; None before the first.
    """

    weights: tuple[float, ...]
    since: int
    drawn: tuple[int, ...]
    errors: tuple[float, ...] | None


class Mixture:
    """The sequence of problems of one training."""

    def __init__(
        self, problems: Sequence[str], windows: Sequence[int], *, sampling: Sampling, seed: int, purpose: str
    ) -> None:
        """windows: number of train windows per problem; purpose: makes stages of one seed differ."""
        self.problems = tuple(problems)
        self.sampling: Sampling = sampling
        self.key = (seed, purpose, "problem")
        share = np.asarray(windows, dtype=np.float64) if sampling == "proportional" else np.ones(len(windows))
        weights = tuple((share / share.sum()).tolist())
        self._state = MixtureState(weights, 0, (0,) * len(self.problems), None)
        self._choices: list[int] = []  # since the weights' first step

    def at(self, step: int) -> tuple[str, int]:
        """The problem of a step, and how many batches of that problem precede it.

        Raises:
            ValueError: the step lies before the present weights.
        """
        if len(self.problems) == 1:
            return self.problems[0], step
        offset = step - self._state.since
        if offset < 0:
            raise ValueError(f"step {step} lies before {self._state.since}, since when the weights hold")
        limits = np.cumsum(self._state.weights)
        while len(self._choices) <= offset:
            place = numpy_generator(*self.key, self._state.since + len(self._choices)).random()
            # Rounding may leave the last limit below 1.
            self._choices.append(min(int(np.searchsorted(limits, place, "right")), len(self.problems) - 1))
        chosen = self._choices[offset]
        return self.problems[chosen], self._state.drawn[chosen] + self._choices[:offset].count(chosen)

    def reweigh(self, step: int, errors: Mapping[str, float]) -> bool:
        """Follow validation errors from `step` on; whether the weights changed.

        errors must be equal on all ranks.

        Raises:
            NotFiniteError: an error is NaN or infinite, and so would the weights be.
        """
        if self.sampling != "difficulty_weighted" or len(self.problems) == 1:
            return False
        new = np.array([errors[problem] for problem in self.problems])
        for problem, error in zip(self.problems, new.tolist(), strict=True):
            if not math.isfinite(error):
                raise NotFiniteError(
                    f"the validation error of {problem} is {error} at step {step}, and weights follow it",
                    fix="lower the learning rate or lengthen the warm-up of this stage",
                )
        old = self._state.errors
        smoothed = new if old is None else _SMOOTHING * new + (1 - _SMOOTHING) * np.array(old)
        # Without any error no problem is more difficult than another.
        shares = smoothed / smoothed.sum() if smoothed.any() else np.full(len(new), 1 / len(new))
        weights = _EVEN_SHARE / len(new) + (1 - _EVEN_SHARE) * shares
        self.at(step)  # the choices up to here, by the old weights
        past = self._choices[: step - self._state.since]
        drawn = tuple(count + past.count(index) for index, count in enumerate(self._state.drawn))
        self._state = MixtureState(tuple(weights.tolist()), step, drawn, tuple(smoothed.tolist()))
        self._choices = []
        return True

    def state(self) -> dict[str, Any]:
        """For the checkpoint, JSON."""
        return vars(self._state).copy()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint's state."""
        self._state = replace(
            self._state,
            weights=tuple(state["weights"]),
            since=state["since"],
            drawn=tuple(state["drawn"]),
            errors=None if state["errors"] is None else tuple(state["errors"]),
        )
        self._choices = []
