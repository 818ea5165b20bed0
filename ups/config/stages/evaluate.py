"""evaluate: settings of the scoring."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, model_validator

from ups.config.conditioning import Conditioning
from ups.config.sizes import KeptShape
from ups.config.stage import ContentOf, Stage, execution_settings, operator_modules
from ups.problems.generated import FromSinusoids
from ups.section import Count, Positive, Real, Section, Seed

if TYPE_CHECKING:
    from ups.config.schema import Configuration

_MODELS_IN_TABLE = 15
_EXAMPLES = 3 * 4  # three trajectories: truth, two forecasts and a spread of each
_NUMBER_IN_TEXT = 21
_RECORDS_BYTES = 300_000


class Outside(Section):
    """Test trajectories outside the training range: the same initial states, turned into others and solved anew."""

    amplitude: Positive = Field(default=2.0, description="factor on the initial states")
    offset: Real = Field(default=1.0, ge=-1e6, le=1e6, description="added to them")
    parameter: Positive = Field(default=1.0, description="factor on the equation's parameter (nu, beta)")
    trajectories: Count = Field(default=32, description="of the test split, its first")


class Evaluation(Section):
    """Scoring of full rollouts on the test split."""

    members: Count = Field(default=16, ge=2, description="ensemble members of the probabilistic models")
    batch_size: Count = Field(default=256, description="states advanced together")
    seed: Seed = Field(default=0, description="seed of the ensembles' noise")
    outside: Outside | None = Field(
        default=None,
        description="score outside the training range too, in a table of its own; of generated Burgers and advection",
    )
    ttc: Conditioning | None = Field(
        default=None,
        description="test-time conditioning: a row of forecasts chosen by physics, with its controls; null: none",
    )

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
    return {"evaluation": configuration.evaluation.model_dump()} | machine


def _conditioning(configuration: "Configuration") -> list[str]:
    """What test-time conditioning takes by name."""
    settings = configuration.evaluation.ttc
    if settings is None:
        return []
    equations = {data.problem.name for data in configuration.problems.values()}
    steps = (
        sorted(f"ups.physics.defects.{name}" for name in equations) if "residual" in settings.scores else []
    )
    return [f"ups.evaluation.selections.{settings.selection.kind}", *steps]


def _bytes(configuration: "Configuration", shapes: Mapping[str, KeptShape], _: Mapping[str, int]) -> int:
    return sum(
        _problem_bytes(data.counts.test, shapes[name]) for name, data in configuration.problems.items()
    )


def _problem_bytes(trajectories: int, shape: KeptShape) -> int:
    numbers = 4 * shape.frames + shape.points + 2 * trajectories
    examples = 4 * _EXAMPLES * shape.frames * shape.points
    return examples + _MODELS_IN_TABLE * _NUMBER_IN_TEXT * numbers + _RECORDS_BYTES


def _generators_outside(configuration: "Configuration") -> list[str]:
    """Of the problems that evaluation solves itself, outside the training range."""
    if configuration.evaluation.outside is None:
        return []
    data = configuration.problems.values()
    return [each.generator for each in data if isinstance(each, FromSinusoids)]


STAGE = Stage(
    "evaluate",
    inputs=("download", "autoencoder", "cache_encode", "operator", "diffusion", "consistency"),
    settings=_settings,
    bytes=_bytes,
    section=("evaluation", Evaluation),
    # The train split's mean is a map's trivial forecast; on the validation split conditioning is fitted.
    splits=("train", "validation", "test"),
    parallel=False,
    found_by_name=lambda c: [*operator_modules(c), *_generators_outside(c), *_conditioning(c)],
)
