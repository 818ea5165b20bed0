"""Settings of test-time conditioning: candidates of a forecast, how physics scores them, and what is made of them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from ups.config.physical_scores import REFINED, PhysicalScore, scores_of, totals_kept
from ups.config.selections.whole import Whole
from ups.kinds import choice_of, sections_of
from ups.problems.problem import Boundary, Problem
from ups.section import Count, NonNegative, Positive, Real, Section

if TYPE_CHECKING:
    from ups.config.schema import Configuration
    from ups.problems.generated import ProblemData

ROW, RANDOM, ORACLE, OBSERVED = "ttc", "ttc_random", "ttc_oracle", "ttc_observed"
"""Rows of the result table: the conditioned forecast, its controls, and the one that is also given measurements."""
FITTED_FILE = "conditioning.json"
"""What validation trajectories chose, by problem: in the artifact of the evaluate stage, and beside the results of a run."""
SELECTIONS = sections_of("ups.config.selections")
if TYPE_CHECKING:
    Selection = Any  # a union of what is found has no type that a checker knows
else:
    Selection = choice_of(SELECTIONS)


class Observations(Section):
    """A few measurements of the first scored field that is to be forecast, later than its first frame."""

    sensors: Annotated[tuple[Annotated[tuple[Real, ...], Field(max_length=3)], ...], Field(min_length=1)] = (
        Field(description="positions, a coordinate per space axis, in the units of the domain")
    )
    times: Annotated[tuple[Positive, ...], Field(min_length=1)] = Field(
        description="at which all sensors are read; frames of the forecast"
    )
    noise: NonNegative = Field(description="standard deviation of a reading, in the field's unit")

    def problem_with(
        self, problem: Problem, frame_interval: float | None, frames: int | None
    ) -> tuple[str, str] | None:
        """Key and reason why an equation's trajectories cannot be observed so; None if they can.

        frame_interval, frames: None as long as only a file knows them.
        """
        if problem.is_map:
            return "times", f"{problem.title} has no time at which to observe it: write observations: null"
        for sensor in self.sensors:
            if len(sensor) != len(problem.axes):
                return (
                    "sensors",
                    f"{list(sensor)} has {len(sensor)} coordinates, and {problem.title} {len(problem.axes)} axes",
                )
            for place, axis, (lower, upper) in zip(sensor, problem.axes, problem.domain, strict=True):
                if not lower <= place < upper:
                    return (
                        "sensors",
                        f"{place:g} is outside the domain of {problem.title}, {lower:g} <= {axis} < {upper:g}: move the sensor",
                    )
        if frame_interval is not None and frames is not None:
            for time in self.times:
                frame = round(time / frame_interval)
                # Stamps of files are float32: after hundreds of frames they are off by 1e-5 of the interval.
                if not 1 <= frame < frames or abs(frame * frame_interval - time) > 1e-4 * frame_interval:
                    return (
                        "times",
                        f"{time:g} is no frame of the forecast, which has one every {frame_interval:g} up to "
                        f"{(frames - 1) * frame_interval:g}: choose one of these",
                    )
        return None


class Conditioning(Section):
    """Candidates of each trajectory, scored by the equation; the best of them, or the best that can be made of them."""

    models: Annotated[tuple[Literal["diffusion", "consistency"], ...], Field(min_length=1, max_length=2)] = (
        Field(
            default=("diffusion",),
            description="that draw candidates; the operator's own forecast is always one",
        )
    )
    members: Count = Field(default=16, description="candidates of each of these models")
    scores: dict[PhysicalScore, Positive] = Field(
        default={"residual": 1.0},
        min_length=1,
        description="what candidates are scored by, and the weight of its square. All are in units of the first frame's "
        "root mean square",
    )
    refinement: Annotated[Count, Field(le=64)] = Field(
        default=1,
        description="points per axis, for one of the forecast's, of the grid on which the solver takes the step that the residual "
        "compares with",
    )
    keep_totals: bool = Field(
        default=False,
        description="move every candidate, evenly over the domain, to the totals of the first frame that the equation keeps",
    )
    selection: Selection = Field(
        default=Whole(kind="whole"), description="what is made of the scored candidates"
    )
    fitted_on: Count = Field(
        default=32, description="validation trajectories that choose its parameter and the gates, at most"
    )
    max_calls: Count | None = Field(
        default=None, description="calls of the generative models per trajectory, at most; null: no limit"
    )
    max_seconds: Positive | None = Field(
        default=None,
        description="per trajectory, after which no further candidates are drawn; null: no limit. With it results depend on the "
        "machine's speed",
    )
    stop_at: Positive | None = Field(
        default=None,
        description="score, as a root mean square over leads, at which a trajectory takes no further candidates; null: it takes all",
    )
    observations: Observations | None = Field(
        default=None, description="a row in which the forecast is corrected by measurements; null: none"
    )

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if len(set(self.models)) < len(self.models):
            raise ValueError(f"models: {self.models[0]} is named twice: name it once")
        if self.keep_totals and "conservation" in self.scores:
            raise ValueError(
                "scores: conservation is 0 for all candidates with keep_totals: leave one of them out"
            )
        if self.refinement > 1 and "residual" not in self.scores:
            raise ValueError("refinement: is of the residual, which is no score here: leave it out")
        if self.selection.kind == "least_squares" and set(self.scores) != {"residual"}:
            raise ValueError(
                "selection: least_squares makes the residual least and nothing else: write scores: {residual: 1}, or another "
                "selection"
            )
        return self

    def problem_with(self, configuration: "Configuration") -> str | None:
        """Why a run cannot be conditioned so, beginning with the key; None if it can."""
        every = calls_per_member(configuration)
        calls = {model: every[model] for model in self.models}
        counts = candidates_within(self.max_calls, self.members, calls)
        for model in self.models:
            if not counts[model]:
                spent = sum(counts[other] * calls[other] for other in self.models)
                left = f", less {spent} of other candidates," if spent else ""
                fewer = ", lower members" if spent else ""
                without = ", ".join(other for other in self.models if other != model) or "consistency"
                return (
                    f"max_calls: {self.max_calls}{left} is below the {calls[model]} calls of one candidate of the {model} model: "
                    f"raise it{fewer}, or write models: [{without}]"
                )
        equations = {data.problem.name for data in configuration.problems.values()}
        if self.refinement > 1 and not equations & REFINED:
            return "refinement: no equation here is solved on a finer grid for its residual: leave it out"
        for name, data in configuration.problems.items():
            interval = getattr(data, "frame_interval", None)
            if problem := self.problem_of(data, data.usual_boundary, interval, data.kept_frames):
                alike = f", for {name} is conditioned alike" if len(configuration.problems) > 1 else ""
                return f"{problem}{alike}"
        return None

    def problem_of(
        self, data: "ProblemData", boundary: Boundary, frame_interval: float | None, frames: int | None
    ) -> str | None:
        """Why the trajectories of one problem cannot be scored or observed so, beginning with the key; None if they can.

        frame_interval, frames: None as long as only a file knows them.
        """
        equation = data.problem
        available = scores_of(equation, boundary, data.used_variables())
        for score in self.scores:
            if score not in available:
                having = ", ".join(available) or "none"
                return f"scores.{score}: {equation.title} with {boundary} boundary does not have it (it has {having}): leave it out"
        if self.keep_totals and not totals_kept(equation, boundary):
            return f"keep_totals: {equation.title} with {boundary} boundary keeps no total: write false"
        if self.observations is None:
            return None
        found = self.observations.problem_with(equation, frame_interval, frames)
        return found and f"observations.{found[0]}: {found[1]}"


def calls_per_member(configuration: "Configuration") -> dict[str, int]:
    """Network calls of one candidate, by model; the student is asked in one call."""
    return {"diffusion": diffusion_calls(configuration.training.diffusion.sampler_steps), "consistency": 1}


def diffusion_calls(steps: int) -> int:
    """Network calls of a sample in so many steps of Heun's method, the last of which needs one."""
    return 2 * steps - 1


def candidates_within(max_calls: int | None, members: int, calls: Mapping[str, int]) -> dict[str, int]:
    """Candidates of each model that a budget of calls allows, in the order of the models, each up to `members`.

    calls: of one candidate, by model.
    """
    if max_calls is None:
        return dict.fromkeys(calls, members)
    left, found = max_calls, {}
    for model, each in calls.items():
        found[model] = min(members, left // each)
        left -= found[model] * each
    return found
