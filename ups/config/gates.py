"""Gates: what a run must show, of its trainings before it is evaluated, and of its results on test trajectories.

They change no result and are no part of any key, so that a run which does not pass is as usable as another, and its
gates may be set anew without anything being built again.
"""

import difflib
from collections.abc import Callable, Collection, Iterable
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator

from ups.metric_labels import METRICS
from ups.model_labels import MODELS
from ups.section import Real, Section


def _one_of(what: str, names: Iterable[str]) -> tuple[Any, ...]:
    known = list(names)
    return AfterValidator(_known(what, known)), WithJsonSchema({"enum": known})


def _known(what: str, known: list[str]) -> Callable[[str], str]:
    def check(name: str) -> str:
        if problem := _unknown(what, name, known):
            raise ValueError(problem)
        return name

    return check


def _unknown(what: str, name: str, known: Collection[str]) -> str | None:
    if name in known:
        return None
    near = difflib.get_close_matches(name, known, n=1)
    return f"no {what} is called {name!r}; " + (
        f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
    )


class Gate(Section):
    """Limits of one number. A number that is missing or not finite does not pass."""

    problem: str | None = Field(default=None, description="by its name; null: of every problem")
    at_most: Real | None = Field(default=None, description="largest value that passes")
    at_least: Real | None = Field(default=None, description="smallest value that passes")

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        if self.at_most is None and self.at_least is None:
            raise ValueError("it limits nothing: write at_most or at_least")
        if self.at_most is not None and self.at_least is not None and self.at_least > self.at_most:
            raise ValueError(
                f"at_least {self.at_least:g} is above at_most {self.at_most:g}, and nothing passes"
            )
        return self


class ValidationGate(Gate):
    """Limits of the validation error that a training ends with: of the weights that it publishes."""

    stage: str = Field(description="a training")


class ResultGate(Gate):
    """Limits of one metric of one model, as in metrics.json; of several fields, where only they have it, of each."""

    model: Annotated[str, *_one_of("model", MODELS)] = Field(description="a row of the result table")
    metric: Annotated[str, *_one_of("metric", (metric.name for metric in METRICS))] = Field(
        description="of accuracy, physics, spectrum, uncertainty or cost"
    )


class Gates(Section):
    """What a run must show to end well. Never part of a digest."""

    validation: tuple[ValidationGate, ...] = Field(
        default=(),
        description="of the trainings; without them the run is not evaluated, and no test trajectory is read",
    )
    test: tuple[ResultGate, ...] = Field(default=(), description="of the results, once they are published")

    def problem(self, trainings: Collection[str], problems: Collection[str]) -> str | None:
        """What no run of these trainings and problems can show; None if there is nothing."""
        for number, gate in enumerate(self.validation):
            if found := _unknown("training", gate.stage, trainings):
                return f"gates.validation.{number}.stage: {found}"
        for kind, gates in (("validation", self.validation), ("test", self.test)):
            for number, gate in enumerate(gates):
                if gate.problem is not None and (found := _unknown("problem", gate.problem, problems)):
                    return f"gates.{kind}.{number}.problem: {found}"
        return None
