"""evaluate: settings of the scoring."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from ups.config.conditioning import OBSERVED, ORACLE, RANDOM, ROW, Conditioning
from ups.config.sizes import KeptShape
from ups.config.stage import ContentOf, Stage, execution_settings, operator_modules
from ups.problems.generated import FromSinusoids, ProblemData
from ups.section import Count, Positive, Real, Section, Seed

if TYPE_CHECKING:
    from ups.config.schema import Configuration

_MODELS_IN_TABLE = 15
_BY_LEAD = 40  # numbers of each frame in the table: 14, and 9 of each of three fields
_EXAMPLES = 3 * 4  # three trajectories: truth, two forecasts and a spread of each
_NUMBER_IN_TEXT = 21
_RECORDS_BYTES = 500_000


class Outside(Section):
    """Test trajectories outside the training range: the same initial states, turned into others and solved anew."""

    amplitude: Positive = Field(default=2.0, description="factor on the initial states")
    offset: Real = Field(default=1.0, ge=-1e6, le=1e6, description="added to them")
    parameter: Positive = Field(default=1.0, description="factor on the equation's parameter (nu, beta)")
    trajectories: Count = Field(default=32, description="of the test split, its first")


class Evaluation(Section):
    """Scoring of full rollouts on the test split, or of a few on the validation split."""

    members: Count = Field(default=16, ge=2, description="ensemble members of the probabilistic models")
    batch_size: Count = Field(default=256, description="states advanced together")
    seed: Seed = Field(default=0, description="seed of the ensembles' noise")
    small: Count | None = Field(
        default=None,
        description="score so many of each problem's validation trajectories, its first, and no test trajectory; null: all "
        "test trajectories, those outside the training range, and test-time conditioning",
    )
    pdebench_initial_steps: int = Field(
        default=1,
        ge=0,
        le=1000,
        description="initial frames that PDEBench's metrics do not count; 1: the given one; 0: none, and it counts with its "
        "error of zero, as in the numbers of PDEBench's paper; 10: those that PDEBench gives to its models",
    )
    outside: Outside | None = Field(
        default=None,
        description="score outside the training range too, in a table of its own; of generated Burgers and advection",
    )
    ttc: Conditioning | None = Field(
        default=None,
        description="test-time conditioning: a row of forecasts chosen by physics, with its controls; null: none; left to the full evaluation",
    )

    @property
    def conditioning(self) -> Conditioning | None:
        """Test-time conditioning, where it is on: a small evaluation has the trajectories that it would be fitted on."""
        return self.ttc if self.small is None else None

    @property
    def fitted_splits(self) -> tuple[str, ...]:
        """Read beside the split that is scored."""
        return () if self.conditioning is None else ("validation",)

    @property
    def split(self) -> Literal["test", "validation"]:
        """That is scored."""
        return "test" if self.small is None else "validation"

    def row_problem(self, model: str) -> str | None:
        """Why a result table has no row of a model, beginning with the key; None where nothing is known against it."""
        if model not in {ROW, RANDOM, ORACLE, OBSERVED}:
            return None
        if self.ttc is None:
            return f"evaluation.ttc: null makes no row {model}"
        if self.small is not None:
            return f"evaluation.small: {self.small} leaves out test-time conditioning, and with it the row {model}"
        if model == OBSERVED and self.ttc.observations is None:
            return f"evaluation.ttc.observations: null makes no row {model}"
        return None

    def problem_of(self, name: str, data: ProblemData, frames: int | None) -> str | None:
        """Why the data of a problem cannot be scored so; None if they can.

        frames: kept of a trajectory; None as long as only a file knows.
        """
        if self.small is not None and self.small > data.counts.validation:
            return (
                f"evaluation.small: {self.small} are more than the {data.counts.validation} validation trajectories of "
                f"{name}: lower it"
            )
        if not data.problem.is_map and frames is not None and self.pdebench_initial_steps >= frames:
            return (
                f"evaluation.pdebench_initial_steps: {self.pdebench_initial_steps} leaves none of the {frames} frames of "
                f"{name}: lower it"
            )
        return None

    @model_validator(mode="after")
    def _members_fit(self) -> Self:
        if self.batch_size < self.members:
            raise ValueError(
                f"batch_size {self.batch_size} is below the {self.members} members of an ensemble, which advance together: "
                "raise batch_size, or lower members"
            )
        return self


def _settings(configuration: "Configuration", _: ContentOf) -> dict[str, Any]:
    execution = execution_settings(configuration)
    machine = {key: execution[key] for key in ("device", "threads")}  # it has no ranks
    evaluation = configuration.evaluation.model_dump()
    if configuration.evaluation.small is not None:  # it reads neither
        evaluation |= {"ttc": None, "outside": None}
    return {"evaluation": evaluation} | machine


def _splits(configuration: "Configuration") -> tuple[str, ...]:
    # The train split's mean is a map's trivial forecast; on the validation split conditioning is fitted.
    settings = configuration.evaluation
    return tuple(dict.fromkeys(("train", *settings.fitted_splits, settings.split)))


def _conditioning(configuration: "Configuration") -> list[str]:
    """What test-time conditioning takes by name."""
    settings = configuration.evaluation.conditioning
    if settings is None:
        return []
    equations = {data.problem.name for data in configuration.problems.values()}
    steps = (
        sorted(f"ups.physics.defects.{name}" for name in equations) if "residual" in settings.scores else []
    )
    return [f"ups.evaluation.selections.{settings.selection.kind}", *steps]


def _bytes(configuration: "Configuration", shapes: Mapping[str, KeptShape], _: Mapping[str, int]) -> int:
    return sum(
        _problem_bytes(configuration.evaluation, data, shapes[name])
        for name, data in configuration.problems.items()
    )


def _problem_bytes(settings: Evaluation, data: ProblemData, shape: KeptShape) -> int:
    trajectories = settings.small or data.counts.test
    numbers = (4 + _BY_LEAD) * shape.frames + shape.points + 2 * trajectories
    examples = 4 * _EXAMPLES * shape.frames * shape.points
    ttc = settings.conditioning
    candidates = 0 if ttc is None else 1 + ttc.members * len(ttc.models)
    scored = 2 * _NUMBER_IN_TEXT * trajectories * candidates  # by physics and by the truth
    tables = 1 + _has_outside(settings, data)
    return examples + _MODELS_IN_TABLE * _NUMBER_IN_TEXT * numbers + scored + tables * _RECORDS_BYTES


def _has_outside(settings: Evaluation, data: ProblemData) -> bool:
    return settings.outside is not None and settings.small is None and isinstance(data, FromSinusoids)


def _generators_outside(configuration: "Configuration") -> list[str]:
    """Of the problems that evaluation solves itself, outside the training range."""
    settings, problems = configuration.evaluation, configuration.problems.values()
    return [
        data.generator
        for data in problems
        if isinstance(data, FromSinusoids) and _has_outside(settings, data)
    ]


STAGE = Stage(
    "evaluate",
    inputs=("download", "autoencoder", "cache_encode", "operator", "diffusion", "consistency"),
    settings=_settings,
    bytes=_bytes,
    section=("evaluation", Evaluation),
    splits=_splits,
    parallel=False,
    found_by_name=lambda c: [*operator_modules(c), *_generators_outside(c), *_conditioning(c)],
)
