"""The flow `validate-optimizations`: does an optimised configuration hold what it promises."""

from typing import Annotated, Self

from prefect import flow
from prefect.runtime import flow_run
from pydantic import BaseModel, ConfigDict, Field, model_validator

from flows.chain import OF_A_FLOW, begin, given_name
from flows.experiment import Experiment
from tasks.comparison import judge, train_arm
from tasks.preflight import preflight
from tasks.stopping import result_of
from ups.errors import ConfigurationError
from ups.pipeline.ab_gates import Gates
from ups.pipeline.comparison import COMPARED, Arm, arms_of, name_of, turns
from ups.pipeline.run import find_root


class Comparison(BaseModel):
    """Two configurations of the same data, and what the second must show against the first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    baseline: Experiment
    optimised: Experiment
    stage: Annotated[str, Field(json_schema_extra={"enum": list(COMPARED)})] = "operator"
    seeds: Annotated[int, Field(ge=2, le=100, description="Trainings of each.")] = 3
    leave_one_out: Annotated[
        bool, Field(description="Also the optimised configuration without each of its differences.")
    ] = False
    speed: Annotated[float, Field(gt=0, description="Gate: more than this many times the baseline's.")] = 1.0
    error: Annotated[float, Field(ge=0, description="Gate: a larger error by at most this part.")] = 0.03
    memory: Annotated[float, Field(gt=0, description="Gate: at most this times the baseline's.")] = 1.1

    def arms(self) -> list[Arm]:
        """See `ups.pipeline.comparison.arms_of`."""
        first, second = self.baseline, self.optimised
        return arms_of(
            Arm("", str(first.path), first.overrides),
            Arm("", str(second.path), second.overrides),
            leave_one_out=self.leave_one_out,
        )

    @model_validator(mode="after")
    def _can_be_compared(self) -> Self:
        try:
            self.arms()
        except ConfigurationError as error:
            raise ValueError(str(error)) from None
        return self


def name_of_this_comparison() -> str:
    """The name that somebody gave the run, or else for example "burgers_demo or burgers_demo execution.compile=True"."""
    comparison = Comparison.model_validate(flow_run.get_parameters()["comparison"])
    return given_name() or f"{comparison.baseline.name} or {comparison.optimised.name}"


@flow(name="validate-optimizations", flow_run_name=name_of_this_comparison, **OF_A_FLOW)
def validate_optimizations(comparison: Comparison) -> None:
    """Train two configurations with the same seeds in turns, and compare speed, error and memory.

    The run fails where the optimised one does not pass its gates. Trainings that are done are not done again.

    Args:
        comparison: Two configurations, and the gates.
    """
    begin()
    arms = comparison.arms()
    for arm in arms:
        check = preflight.with_options(task_run_name=f"preflight of {arm.name}")
        check(arm.config, dict(arm.overrides), "quick", comparison.stage)
    name, root = name_of(arms), str(find_root(None))
    trained = [
        result_of(
            train_arm.with_options(task_run_name=f"{arm.name}, seed {seed}")(
                arm.to_json(), seed, comparison.stage, name, root
            )
        )
        for arm, seed in turns(arms, comparison.seeds)
    ]
    gates = Gates(comparison.speed, comparison.error, comparison.memory)
    judge(trained, gates.to_json(), comparison.stage, name)
