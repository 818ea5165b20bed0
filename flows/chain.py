"""The method, as every flow of this project follows it."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from coolname.data import config as _coolname
from prefect import get_run_logger
from prefect.context import FlowRunContext
from prefect.runtime import flow_run
from prefect.utilities.annotations import quote

from flows.experiment import Experiment
from tasks.chain import autoencoder, cache_encode, consistency, diffusion, download, evaluate, operator
from tasks.gates import judge
from tasks.part_of_the_chain import run_up_to
from tasks.preflight import preflight
from tasks.publish import publish, publish_seeds
from tasks.secrets import take_secrets
from tasks.stopping import crash_left_behind, end_left_behind, say_what_was_kept
from ups.config import load_configuration
from ups.pipeline.finish_hooks import finish_hooks
from ups.pipeline.run import Run, find_root, overrides_by_seed

_WORDS_OF_PREFECT = {word for kind in _coolname.values() for word in kind.get("words", ())}
"""Two of these name a run that nobody has named."""


OF_A_FLOW: dict[str, Any] = {
    "persist_result": False,
    "on_crashed": [end_left_behind],
    "on_cancellation": [say_what_was_kept],
}
"""Options of every flow of this project."""


def begin() -> None:
    """What every flow does first."""
    take_secrets()
    crash_left_behind(UUID(flow_run.get_id()))  # what an attempt that was killed has left, whoever found it


def name_of_this_run() -> str:
    """The name that somebody gave it, or else what it does."""
    return given_name() or Experiment.model_validate(flow_run.get_parameters()["experiment"]).name


def given_name() -> str | None:
    """Of this flow run; None where Prefect made one up."""
    given = flow_run.get_name() or ""
    words = given.split("-")
    made_up = len(words) == 2 and _WORDS_OF_PREFECT.issuperset(words)
    return None if made_up or not given else given


def train_and_evaluate(experiment: Experiment) -> str:
    """Autoencoder, latent operator, diffusion correction and its one-call student, scored on decoded fields.

    Returns:
        Path of the report, of the last seed where the configuration asks for several.
    """
    configuration = load_configuration(experiment.path, experiment.overrides)
    # Around all that may fail: a machine that nobody stops costs as much where the server is away.
    with finish_hooks(configuration, find_root(None), after_the_process=True) as begun:
        begin()
        runs = [
            experiment.model_copy(update={"overrides": overrides})
            for overrides in overrides_by_seed(experiment.path, experiment.overrides)
        ]
        asked = _asked()
        preflight(
            str(experiment.path),
            experiment.overrides,
            experiment.preflight,
            experiment.until,
            experiment.rebuild,
            None if asked is None else asked.isoformat(),
        )
        reports = [_one_seed(run, begun) for run in runs]
        if len(reports) > 1 and experiment.is_whole:
            publish_seeds(reports)
    return reports[-1]


def _asked() -> datetime | None:
    """When this flow run was; a retry does not ask again."""
    context = FlowRunContext.get()
    return None if context is None or context.flow_run is None else context.flow_run.created


def _one_seed(experiment: Experiment, begun: Callable[[Path], None]) -> str:
    """The chain once; the path of its report, or of the run's directory where it ends before.

    begun: is told of the run's directory.

    Tasks are called and not submitted: each reads what the one before it made; and a signal, which reaches the main
    thread alone, ends the stage that is running there.
    """
    started = Run.start(
        experiment.path,
        experiment.overrides,
        until=experiment.until,
        rebuild=experiment.rebuild,
        asked=_asked(),
    )
    begun(started.directory)
    get_run_logger().info("run directory: %s", started.directory)
    # Prefect draws the graph by the identity of what it finds in arguments, and names of stages are everywhere in these.
    run: Any = quote(started.settings)
    gates = started.configuration.gates
    held = started.hold  # what later stages read, `ups cache gc` leaves
    with started:
        if experiment.until is not None and not experiment.is_whole:
            run_up_to(experiment.until, run)
            return str(started.directory)
        data = held(download(run))
        codec = held(autoencoder(run, data))
        cache = held(cache_encode(run, data, codec))
        forecast = held(operator(run, data, cache))
        residual = held(diffusion(run, data, cache, forecast))
        student = held(consistency(run, data, cache, forecast, residual))
        if gates.validation:
            judge(run, "validation", student)
        table = held(evaluate(run, data, codec, cache, forecast, residual, student))
        report = publish(run, table)
        if gates.test:
            judge(run, "test", report)
        return report
