"""A stage that is told to end, by Cancel or by Suspend, and what is left on the server of one that was killed."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from httpx import HTTPError
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType, TaskRun
from prefect.client.schemas.sorting import TaskRunSort
from prefect.context import FlowRunContext
from prefect.exceptions import TerminationSignal
from prefect.runtime import flow_run
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.states import Crashed

_POLL_SECONDS = 0.5
_LEFT_BEHIND = "the flow's process was killed; Retry of the flow run goes on from the last checkpoint"


@contextmanager
def ended_by_suspend() -> Iterator[None]:
    """Make Suspend of the flow run end what happens here as Cancel does, by SIGTERM.

    Prefect itself leaves a suspended run at its next task: a training would go on for hours, and keep the GPU.
    """
    context = FlowRunContext.get()
    over = threading.Event()

    def watch() -> None:
        assert context is not None
        while not over.wait(_POLL_SECONDS):
            if context.flow_run_suspension_request.is_requested():
                os.kill(os.getpid(), signal.SIGTERM)
                return

    watching = threading.Thread(target=watch, daemon=True)
    if context is not None:
        watching.start()
    try:
        yield
    finally:
        over.set()
        if context is not None:
            watching.join()  # a signal that it has sent is raised here, and not in what follows


def told_to_end() -> bool:
    """Whether somebody has cancelled or suspended this flow run; else SIGTERM is of a machine that shuts down."""
    try:
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}), get_client(sync_client=True) as client:
            state = client.read_flow_run(UUID(flow_run.get_id())).state
    except HTTPError:  # it is away; the run ends as one that was ended from outside
        return False
    return state is not None and (state.is_cancelling() or state.is_cancelled() or state.is_paused())


def result_of(ended: State[Any]) -> Any:
    """What a task has made, by the state that it has returned; its flow ends here if the task was told to end."""
    if ended.is_cancelled():
        raise TerminationSignal(signal.SIGTERM)
    return ended.result()


def end_left_behind(flow: Any, flow_run: FlowRun, state: State[Any]) -> None:
    """Hook of a flow run that crashed: its task runs do not stay Running for ever."""
    del flow, state
    crash_left_behind(flow_run.id)


def crash_left_behind(flow_run_id: UUID) -> None:
    """Set all task runs of a flow run that look alive to Crashed; no process of it must run any more."""
    alive = {StateType.RUNNING, StateType.PENDING, StateType.SCHEDULED, StateType.PAUSED}
    with get_client(sync_client=True) as client:
        for task_run in client.read_task_runs(
            flow_run_filter=_of(flow_run_id),
            task_run_filter=_in_states(*alive),
        ):
            client.set_task_run_state(task_run.id, Crashed(message=_LEFT_BEHIND), force=True)


def say_what_was_kept(flow: Any, flow_run: FlowRun, state: State[Any]) -> None:
    """Hook of a flow run that is cancelled: its message will name the stage and its checkpoint.

    A worker sets the last state with a message of its own after this hook has ended, and nothing changes a message but
    a further state. So a process that outlives the hook's does it. Rejected: a state set here, which the worker's replaces.
    """
    end_left_behind(flow, flow_run, state)
    with get_client(sync_client=True) as client:
        ended = client.read_task_runs(
            flow_run_filter=_of(flow_run.id),
            task_run_filter=_in_states(StateType.CANCELLED),
            sort=TaskRunSort.END_TIME_DESC,
            limit=1,
        )
    if ended:
        subprocess.Popen(
            [sys.executable, "-m", "tasks.cancelled", str(flow_run.id), _kept(ended[0])],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )


def _kept(task_run: TaskRun) -> str:
    assert task_run.state is not None
    return f"{task_run.name}: {task_run.state.message}"


def _of(flow_run_id: UUID) -> FlowRunFilter:
    return FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id]))


def _in_states(*types: StateType) -> TaskRunFilter:
    return TaskRunFilter(state=TaskRunFilterState(type=TaskRunFilterStateType(any_=list(types))))
