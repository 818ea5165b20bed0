"""A stage of the chain as a Prefect task.

The cache key is stage id + digest and the result a small JSON pointer. The artifact store decides whether
it counts: a key whose artifact is gone or damaged is refreshed, and a stage that somebody else sealed
(`ups run`, another flow) ends as Cached although Prefect has no record of it.
"""

from typing import Any

from prefect import get_run_logger, task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import TaskRunContext
from prefect.states import Completed

from ups.config.schema import TRAINING_STAGES, StageName
from ups.errors import UpsError
from ups.pipeline.run import Run

Pointer = dict[str, str]
"""{"stage", "digest", "path"} of an artifact."""

RETRY_DELAYS = [5, 30]


def worth_a_retry(_task: Any, _run: TaskRun, state: State[Any]) -> bool:
    """Input/output errors, interruptions and killed processes may go well the next time; nothing else does."""
    try:
        state.result()
    except UpsError as error:
        return error.retryable
    except Exception:
        return False
    return False


class StageTask:
    """Called in a flow like a task: `operator(run, cache)`; the arguments after the run draw the graph."""

    def __init__(self, name: StageName, doc: str) -> None:
        self.name = name
        self.__doc__ = doc
        self.task = task(
            name=name.replace("_", "-"),
            description=doc,
            cache_key_fn=self._cache_key,
            persist_result=True,
            result_serializer="json",
            retries=len(RETRY_DELAYS),
            retry_delay_seconds=RETRY_DELAYS,
            retry_condition_fn=worth_a_retry,
        )(self._body)

    def __call__(self, run: Run, *inputs: Pointer) -> Pointer:
        sealed = run.adopt(self.name) is not None
        return self.task.with_options(refresh_cache=not sealed)(run, inputs)

    def _cache_key(self, _context: TaskRunContext, parameters: dict[str, Any]) -> str:
        return f"{self.name}-{parameters['run'].plan[self.name].digest}"

    def _body(self, run: Run, inputs: tuple[Pointer, ...]) -> Any:
        del inputs  # edges of the graph in the UI; the run knows its artifacts
        built = run.built.get(self.name)
        if built is None:
            built = run.stage(
                self.name, on_line=get_run_logger().info, on_progress=self._progress(run.directory.name)
            )
        pointer = {"stage": self.name, "digest": built.artifact.digest, "path": str(built.artifact.path)}
        return Completed(name="Cached", message=built.reason, data=pointer) if built.hit else pointer

    def _progress(self, run_name: str) -> Any:
        if self.name not in TRAINING_STAGES:
            return None
        artifact = create_progress_artifact(0.0, description=f"{self.name} of {run_name}")

        def show(_stage: StageName, record: dict[str, Any]) -> None:
            update_progress_artifact(artifact, progress=100 * record["step"] / record["steps"])

        return show
