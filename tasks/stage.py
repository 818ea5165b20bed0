"""What the tasks of the chain have in common: the key of their results, what they try again, and how they build.

A task gets plain data and returns plain data, so that it may run in any process that sees the run's root. Its body
asks the store, within the task's retries; a stage that is sealed ends as Cached, whoever built it.

Rejected: Prefect's own records as the word on what is cached. INPUTS knows no task, so that tasks with equal inputs
return each other's results; TASK_SOURCE hashes these few lines and not the library that they call; and no record knows
whether the files are still there, or registers them in the directory of this run. So they are written, under the
artifact's key, and `refresh_cache` has the body run whether there is one or not.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from prefect import Task, get_run_logger
from prefect.cache_policies import CachePolicy
from prefect.context import TaskRunContext
from prefect.exceptions import TerminationSignal
from prefect.states import Cancelled, Completed
from prefect.utilities.annotations import quote

from tasks.gpu import gpu
from tasks.progress import shown_progress
from tasks.retries import RETRIES_OF_A_STAGE
from tasks.stopping import ended_by_suspend, result_of, told_to_end
from ups.errors import UpsError
from ups.pipeline.run import Pointer, Run

Settings = dict[str, Any]
"""A started run as plain data, see `ups.pipeline.run.Run.settings`."""


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


class StageTask(Task[..., Any]):
    """The task of a stage, as a flow calls it.

    In the graph of a flow run its edge comes from the last input alone: Prefect draws one from every task whose result
    it finds in the arguments, and as stages read what earlier ones made, the chain would be a web.
    """

    def __call__(self, run: Any, *inputs: Pointer) -> Any:
        """The pointer of the stage's artifact; its flow ends here if the stage was told to end."""
        return result_of(super().__call__(run, *map(quote, inputs[:-1]), *inputs[-1:]))


def stage(name: str) -> Callable[[Callable[..., Pointer]], StageTask]:
    """Makes the task of a stage."""
    shown_name = name.replace("_", "-")

    def task(function: Callable[..., Pointer]) -> StageTask:
        return StageTask(
            fn=function,
            name=shown_name,
            task_run_name=shown_name,
            cache_policy=ArtifactKey(stage=name),
            refresh_cache=True,
            persist_result=True,
            result_serializer="json",
            **RETRIES_OF_A_STAGE,
        )

    return task


def build(name: str, settings: Settings, *inputs: Pointer) -> Any:  # a state; callers get its data
    """Bring a stage to a sealed artifact, or find it sealed; returns its pointer.

    Raises:
        UpsError: see `ups.pipeline.execute.execute`, and `tasks.gpu.gpu`.
        TerminationSignal: this machine shuts down.
    """
    run = Run.of(settings, inputs)
    try:
        built = run.adopt(name)
        if built is None:
            with (
                ended_by_suspend(),
                gpu(needed=run.uses_gpu(name)),
                shown_progress(run, name) as on_progress,
            ):
                built = run.stage(name, on_line=get_run_logger().info, on_progress=on_progress)
    except TerminationSignal:
        if not told_to_end():
            raise
        step = run.last_step(name)
        return Cancelled(message="nothing to keep yet" if step is None else f"checkpoint at step {step}")
    finally:
        run.close()
    return Completed(
        name="Cached" if built.hit else "Completed",
        message=built.reason if built.hit else f"built in {built.artifact.manifest.seconds:.1f} s",
        data=run.pointer(name),
    )
