"""A stage of the chain as a Prefect task.

The cache key is stage id + digest and the result a small JSON pointer, but the artifact store decides
whether a key counts: one whose artifact is gone or damaged is refreshed, and a stage that somebody else
sealed (`ups run`, another flow) ends as Cached although Prefect has no record of it.

Rejected: Prefect's own policies. INPUTS knows no task, so that tasks with equal inputs return each other's
results; TASK_SOURCE hashes these few lines and not the library that they call; and none of them looks
whether the files are still there.
"""

from typing import Any

from prefect import get_run_logger, task
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import TaskRunContext
from prefect.states import Completed

from tasks.progress import shown_progress
from ups.config.schema import StageName
from ups.errors import UpsError
from ups.pipeline.run import Run

Pointer = dict[str, str]
"""{"stage", "digest", "path"} of an artifact; the path starts at the root, which may be moved."""

RETRY_DELAYS_SECONDS = [5.0, 30.0]
RETRY_JITTER = 0.5
"""A delay grows by up to this part of itself: what failed together does not come back together."""


def worth_a_retry(_task: Any, _run: TaskRun, state: State[Any]) -> bool:
    """Input/output errors, interruptions and killed processes may go well the next time; nothing else does, and a full
    disk is full then too."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, UpsError) and error.retryable


class StageTask:
    """Called in a flow like a task: `operator(run, cache)`; the arguments after the run draw the graph."""

    def __init__(self, name: StageName, description: str) -> None:
        self.name: StageName = name
        self.__doc__ = description
        shown_name = name.replace("_", "-")
        self.task = task(
            name=shown_name,
            task_run_name=shown_name,
            description=description,
            cache_key_fn=self._cache_key,
            persist_result=True,
            result_serializer="json",
            retries=len(RETRY_DELAYS_SECONDS),
            retry_delay_seconds=RETRY_DELAYS_SECONDS,
            retry_jitter_factor=RETRY_JITTER,
            retry_condition_fn=worth_a_retry,
        )(self._body)

    def __call__(self, run: Run, *inputs: Pointer) -> Pointer:
        """Ask the store first: Prefect looks up its own record before a body could do so."""
        sealed = run.adopt(self.name) is not None
        return self.task.with_options(refresh_cache=not sealed)(run, inputs)

    def _cache_key(self, _context: TaskRunContext, parameters: dict[str, Any]) -> str:
        return f"{self.name}-{parameters['run'].plan[self.name].digest}"

    def _body(self, run: Run, inputs: tuple[Pointer, ...]) -> Any:  # a state; callers get its data
        del inputs  # edges of the graph in the UI; the run knows its artifacts
        built = run.built.get(self.name)
        if built is None:
            with shown_progress(run, self.name) as on_progress:
                built = run.stage(self.name, on_line=get_run_logger().info, on_progress=on_progress)
        path = built.artifact.path.relative_to(run.store.root)
        return Completed(
            name="Cached" if built.hit else "Completed",
            message=built.reason if built.hit else f"built in {built.artifact.manifest.seconds:.1f} s",
            data={"stage": self.name, "digest": built.artifact.digest, "path": str(path)},
        )
