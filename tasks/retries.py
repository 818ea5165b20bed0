"""What a task tries again, and how often."""

from typing import Any
from uuid import UUID

from prefect import get_run_logger
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import TaskRunContext

from ups.errors import UpsError
from ups.pipeline.run import Run

RETRY_DELAYS_SECONDS = [5.0, 30.0]
RETRY_JITTER = 0.5
"""A delay grows by up to this part of itself: what failed together does not come back together."""
_MOST_TRIES = 1000

_furthest: dict[UUID, tuple[float, int]] = {}
"""By task run: how far its stage was when a try ended, at most, and how many tries have ended there."""


def worth_a_retry(_task: Any, _run: TaskRun, state: State[Any]) -> bool:
    """Input/output errors, interruptions and killed processes may go well the next time; nothing else does, and a full
    disk is full then too."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, UpsError) and error.retryable


def while_it_progresses(task: Any, run: TaskRun, state: State[Any]) -> bool:
    """The same for a stage, whose tries are counted anew whenever one got further than all before.

    Prefect's own count is of all tries of a task run: a training on a machine whose processes are killed every hour would be given
    up in its third hour. So `retries` of a stage is more than it will need, and this says when it is enough. Rejected: a loop
    in the task's body, of which the UI would show one try that never ends.
    """
    if not worth_a_retry(task, run, state):
        return False
    context = TaskRunContext.get()
    assert context is not None, "Prefect asks within the task run"
    settings, *_ = context.parameters.values()
    progress = Run.of(settings).progress(task.name.replace("-", "_"))
    furthest, tries = _furthest.get(run.id, (float("-inf"), 0))
    if progress > furthest:
        furthest, tries = progress, 0
    _furthest[run.id] = furthest, tries + 1
    if tries < len(RETRY_DELAYS_SECONDS):
        return True
    get_run_logger().error("given up: %d tries in a row have not got any further", tries + 1)
    return False


RETRIES: dict[str, Any] = {
    "retries": len(RETRY_DELAYS_SECONDS),
    "retry_delay_seconds": RETRY_DELAYS_SECONDS,
    "retry_jitter_factor": RETRY_JITTER,
    "retry_condition_fn": worth_a_retry,
}
RETRIES_OF_A_STAGE = RETRIES | {"retries": _MOST_TRIES, "retry_condition_fn": while_it_progresses}
