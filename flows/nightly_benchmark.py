"""The flow `nightly-benchmark`: is anything slower or less accurate than in the nights before."""

import time
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.states import Completed
from pydantic import BaseModel, ConfigDict, Field

from flows.burgers_upt import burgers_upt
from flows.chain import OF_A_FLOW, begin
from flows.experiment import Experiment
from tasks.gpu import gpu
from tasks.nightly import measure, show
from tasks.preflight import preflight_of_machine
from ups.config import load_configuration
from ups.pipeline.device import resolve
from ups.pipeline.nightly.suite import CACHED_FLOW, QUICK
from ups.pipeline.run import Run, run_all

_REPEATS = 3


class Night(BaseModel):
    """What is measured, and until when a night is worth measuring."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    quick: Annotated[
        bool, Field(description="In a minute, to see how it works; the numbers mean nothing.")
    ] = False
    only: Annotated[
        list[Literal["accuracy", "training", "latents", "generators"]],
        Field(description="Sections of the suite; none: all, and the overhead of a flow."),
    ] = []
    latest_start_hours: Annotated[
        float,
        Field(
            gt=0,
            description="A run of the schedule that begins later than this is skipped: what waited while no worker stood.",
        ),
    ] = 4.0


def name_of_this_night() -> str:
    """The date, in UTC: a night has one, and a list of runs sorts by it."""
    return f"night of {datetime.now(UTC):%Y-%m-%d}"


@flow(name="nightly-benchmark", flow_run_name=name_of_this_night, **OF_A_FLOW)
def nightly_benchmark(night: Night) -> State[Any] | None:
    """Measure a fixed suite, and compare it with the nights before on the same hardware.

    The run fails where something is worse, and says what, by how much and since which commits; the event
    ups.benchmark.regressed says it to automations.

    Args:
        night: What is measured.
    """
    begin()
    late = _hours_late()
    if late > night.latest_start_hours:
        return Completed(
            name="Skipped",
            message=f"{late:.1f} hours late, and {night.latest_start_hours:g} are allowed (latest_start_hours): the next night measures",
        )
    preflight_of_machine("nightly benchmark")
    overhead = {} if night.only else {CACHED_FLOW: [_cached_flow_ratio() for _ in range(_REPEATS)]}
    show(measure(night.quick, list(night.only), overhead))
    return None


def _hours_late() -> float:
    """Of a run that a schedule has made; what people start or retry is never late."""
    context = FlowRunContext.get()
    run = context.flow_run if context is not None else None
    if run is None or not run.auto_scheduled or run.run_count > 1 or run.expected_start_time is None:
        return 0.0
    # Of Prefect's own type of time, whose differences Python's timedelta cannot divide.
    return (time.time() - run.expected_start_time.timestamp()) / 3600


def _cached_flow_ratio() -> float:
    """Seconds of a flow whose stages are all sealed, over those of the same stages without Prefect."""
    experiment = Experiment(config=str(QUICK.configuration), overrides={"tracking.wandb": "disabled"})

    def plain() -> None:
        run = Run.start(experiment.path, experiment.overrides)
        run_all(run, on_line=_quiet, on_stage=_quiet)

    with gpu(
        needed=resolve(load_configuration(experiment.path, experiment.overrides)).execution.device == "cuda"
    ):
        plain()  # builds what is not sealed yet
    return _seconds(lambda: burgers_upt(experiment)) / _seconds(plain)


def _quiet(*_: object) -> None:
    """What the stages print is of no interest here."""


def _seconds(call: Any) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started
