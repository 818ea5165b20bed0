"""What the tasks of the chain have in common: the key of their results, what they try again, and how they build.

A task gets plain data and returns plain data, so that it may run in any process that sees the run's root. Its body
asks the store, within the task's retries; a stage that is sealed ends as Cached, whoever built it.

Rejected: Prefect's own records as the word on what is cached. INPUTS knows no task, so that tasks with equal inputs
return each other's results; TASK_SOURCE hashes these few lines and not the library that they call; and no record knows
whether the files are still there, or registers them in the directory of this run. So they are written, under the
artifact's key, and `refresh_cache` has the body run whether there is one or not.
"""

from dataclasses import dataclass
from typing import Any

from prefect import get_run_logger
from prefect.cache_policies import CachePolicy
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import TaskRunContext
from prefect.states import Completed

from tasks.gpu import gpu
from tasks.progress import shown_progress
from ups.errors import UpsError
from ups.pipeline.run import Pointer, Run

Settings = dict[str, Any]
"""A started run as plain data, see `ups.pipeline.run.Run.settings`."""

RETRY_DELAYS_SECONDS = [5.0, 30.0]
RETRY_JITTER = 0.5
"""A delay grows by up to this part of itself: what failed together does not come back together."""


def worth_a_retry(_task: Any, _run: TaskRun, state: State[Any]) -> bool:
    """Input/output errors, interruptions and killed processes may go well the next time; nothing else does, and a full
    disk is full then too."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, UpsError) and error.retryable


RETRIES: dict[str, Any] = {
    "retries": len(RETRY_DELAYS_SECONDS),
    "retry_delay_seconds": RETRY_DELAYS_SECONDS,
    "retry_jitter_factor": RETRY_JITTER,
    "retry_condition_fn": worth_a_retry,
}


@dataclass
class ArtifactKey(CachePolicy):
    """The key of a task's result is that of the stage's artifact."""

    stage: str = "download"

    def compute_key(
        self,
        task_ctx: TaskRunContext,
        inputs: dict[str, Any],
        flow_parameters: dict[str, Any],
        **kwargs: Any,
    ) -> str | None:
        """STAGE-DIGEST; None where an input cannot be read, which the body then meets, and its retries with it.

        inputs: the arguments: first the settings of the run, then pointers.
        """
        del task_ctx, flow_parameters, kwargs
        settings, *pointers = inputs.values()
        try:
            return f"{self.stage}-{Run.of(settings, pointers).key(self.stage)}"
        except UpsError:
            return None


def stage(name: str) -> dict[str, Any]:
    """The options of a stage's task."""
    shown_name = name.replace("_", "-")
    return RETRIES | {
        "name": shown_name,
        "task_run_name": shown_name,
        "cache_policy": ArtifactKey(stage=name),
        "refresh_cache": True,
        "persist_result": True,
        "result_serializer": "json",
    }


def build(name: str, settings: Settings, *inputs: Pointer) -> Any:  # a state; callers get its data
    """Bring a stage to a sealed artifact, or find it sealed; returns its pointer.

    Raises:
        UpsError: see `ups.pipeline.execute.execute`, and `tasks.gpu.gpu`.
    """
    run = Run.of(settings, inputs)
    try:
        built = run.adopt(name)
        if built is None:
            with gpu(needed=run.uses_gpu(name)), shown_progress(run, name) as on_progress:
                built = run.stage(name, on_line=get_run_logger().info, on_progress=on_progress)
    finally:
        run.close()
    return Completed(
        name="Cached" if built.hit else "Completed",
        message=built.reason if built.hit else f"built in {built.artifact.manifest.seconds:.1f} s",
        data=run.pointer(name),
    )
