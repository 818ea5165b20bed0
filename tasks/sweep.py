"""A sweep on the work pool: a flow run per member, on whichever worker is free."""

import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from httpx import HTTPError
from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterIdempotencyKey,
    FlowRunFilterParentFlowRunId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.deployments import run_deployment
from prefect.states import Cancelled, Cancelling

from tasks.progress import series_key
from tasks.report_links import link_to
from tasks.retries import RETRIES
from ups.artifacts.identity import digest_of
from ups.commands.sweep import members_table, ranking_table, work_table
from ups.commands.tables import rows_of
from ups.errors import GateError, NotFiniteError, StorageError
from ups.pipeline.sweeps.plan import require_room, work_by_stage
from ups.pipeline.sweeps.report import write_sweep_report
from ups.pipeline.sweeps.sweep import CRASHED, DIVERGED, ENDED, FAILED, STARTED, Leg, SweepRun

DEPLOYMENTS = {True: "burgers-upt/prod", False: "pdebench-upt/2task"}
"""Of a member: whether Burgers is its one problem."""
_POLL_SECONDS = 2.0
_MOST_CRASHES = 3  # one after the other, without a validation between
_OPTIONS: dict[str, Any] = {"cache_policy": NO_CACHE, "persist_result": False, **RETRIES}


@task(name="plan", task_run_name="plan", **_OPTIONS)
def show_plan(file: str, root: str) -> None:
    """Show what members share, what is there already, and what is to be built.

    Raises:
        UpsError: the sweep cannot work; no member was started.
    """
    run = SweepRun(Path(file), root)
    plans = run.plan()
    work = work_by_stage(run, plans)
    require_room(run, work)
    for key, table in (("plan", members_table(run, plans)), ("work", work_table(work))):
        create_table_artifact(
            key=series_key(run.file.stem, f"sweep-{key}"),
            description=f"{'Members' if key == 'plan' else 'What they share, and what is left'} of {run.name}",
            table=rows_of(table),
        )


@task(name="members", task_run_name="members", **_OPTIONS)
def run_members(file: str, root: str) -> None:
    """Have all members trained on the work pool, and the finalists evaluated.

    Raises:
        StorageError: the server went away and did not come back; flow runs of members go on.
    """
    run = SweepRun(Path(file), root)
    try:
        with get_client(sync_client=True) as client:
            run.conduct(lambda sweep, legs: _Supervision(client, sweep).run(legs))
    except HTTPError as error:
        raise StorageError(
            f"went away: {error}",
            where="Prefect server",
            fix="retry the run when it is back; members go on, and are not started twice",
        ) from error


@task(name="publish-sweep", task_run_name="publish", **_OPTIONS)
def publish_sweep(file: str, root: str) -> str:
    """Write the report and show the ranking beside this flow run; returns the path of the report."""
    run = SweepRun(Path(file), root)
    rows = run.ranking()
    report = write_sweep_report(run, rows, on_line=get_run_logger().info)
    table = ranking_table(run, rows)
    key = series_key(run.file.stem, "sweep-ranking")
    create_table_artifact(key=key, description=str(table.title), table=rows_of(table))
    best = rows[0]
    create_markdown_artifact(
        key=series_key(run.file.stem, "sweep-report"),
        description=f"Report of sweep {run.name}",
        markdown=f"# {run.file.stem}\n\nBest: **{best['name']}** ({best['state']}).\n\n"
        f"{link_to(report, run.store.root, 'curves, ranking, what of the values matters')}\n\nAgain by itself:\n\n    {best['command']}\n",
    )
    return str(report)


@task(name="verdict", task_run_name="verdict", **_OPTIONS)
def require_done(file: str, root: str) -> None:
    """Fail where members failed, after all is shown."""
    SweepRun(Path(file), root).require_done()


def cancel_members(flow: Any, flow_run: FlowRun, state: State[Any]) -> None:
    """Hook of a sweep that is cancelled: its members are too; each writes a checkpoint first."""
    del flow, state
    going = [StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING, StateType.PAUSED]
    of_this = FlowRunFilter(
        parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[flow_run.id]),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=going)),
    )
    asked: set[UUID] = set()
    with get_client(sync_client=True) as client:
        # The server tells of 200 at a time. One that it does not let go to Cancelling is asked once.
        while members := [
            each for each in client.read_flow_runs(flow_run_filter=of_this) if each.id not in asked
        ]:
            for member in members:
                _cancel(client, member)
                asked.add(member.id)


def _cancel(client: SyncPrefectClient, run: FlowRun) -> None:
    """One that no worker has begun is over at once: there may be no worker that would end it."""
    if run.state is None or run.state.is_final() or run.state.is_cancelling():
        return
    client.set_flow_run_state(run.id, Cancelled() if run.state.is_scheduled() else Cancelling())


@dataclass
class _Launched:
    """A flow run of a member.

    Attributes:
        ends_as: event and what more the journal will have of it, once we told it to end.
    """

    leg: Leg
    id: UUID
    ends_as: tuple[str, dict[str, Any]] | None = None


class _Supervision:
    """Starts flow runs of members, as many at once as the sweep allows, looks after them, and ends those that are to end."""

    def __init__(self, client: SyncPrefectClient, sweep: SweepRun) -> None:
        self.client = client
        self.sweep = sweep
        self.log = get_run_logger()
        self._crashes: dict[str, tuple[int, int]] = {}

    def run(self, legs: list[Leg]) -> None:
        """Until all have come to an end."""
        waiting, running = deque(legs), list[_Launched]()
        most = self.sweep.sweep.at_once or len(legs)
        while waiting or running:
            while waiting and len(running) < most:
                leg = waiting.popleft()
                running.append(_Launched(leg, self._launch(leg)))
            for launched in list(running):
                if self._look_after(launched):
                    running.remove(launched)
                    if self._goes_again(launched.leg):
                        waiting.append(launched.leg)
            time.sleep(_POLL_SECONDS if running else 0)

    def _launch(self, leg: Leg) -> UUID:
        """Start a flow run, or find the one that was started for this, by whoever conducted the sweep before."""
        member, sweep = leg.member, self.sweep
        while True:
            # The same sweep below another root is other work.
            root = digest_of({"root": str(sweep.store.root)})[:12]
            key = f"{sweep.name}/{root}/{member.name}/{sweep.launches(member)}"
            by_key = FlowRunFilter(idempotency_key=FlowRunFilterIdempotencyKey(any_=[key]))
            found = self.client.read_flow_runs(flow_run_filter=by_key)
            if not found:
                sweep.note(STARTED, member)
                experiment = {"config": member.config, "overrides": member.overrides, "until": leg.until}
                started: Any = run_deployment(  # its type is that of the asynchronous call too
                    DEPLOYMENTS[set(member.configuration.problems) == {"burgers1d"}],
                    parameters={"experiment": experiment},
                    flow_run_name=member.name,
                    tags=["sweep", sweep.name],
                    idempotency_key=key,
                    timeout=0,
                )
                return started.id
            state = found[0].state
            if state is None or not state.is_final() or state.is_completed():
                return found[0].id
            # It came to its end when nobody conducted the sweep, cancelled together with it perhaps.
            sweep.note(CRASHED, member, message=f"was {state.name} when the sweep began again")

    def _look_after(self, launched: _Launched) -> bool:
        """Whether it has ended; then the journal knows how."""
        run, leg = self.client.read_flow_run(launched.id), launched.leg
        state = run.state
        if state is None or not state.is_final():
            verdict = None if launched.ends_as else self.sweep.verdict(leg)
            if verdict is not None:
                event, step, message = verdict
                launched.ends_as = event, {"step": step, "message": message}
                self.log.info("%s: %s", leg.member.name, message)
                _cancel(self.client, run)
            return False
        event, more = _ending(state, launched.ends_as)
        self.sweep.note(event, leg.member, **more)
        self.log.info("%s: %s", leg.member.name, ": ".join([event, *map(str, more.values())]))
        return True

    def _goes_again(self, leg: Leg) -> bool:
        """Of one that crashed: a killed worker or machine; not for ever where it makes no progress."""
        name = leg.member.name
        if self.sweep.newest_event(leg.member) != CRASHED:
            return False
        progress = len(self.sweep.curve(leg.member))
        before, times = self._crashes.get(name, (progress, 0))
        times = times + 1 if before == progress else 1
        self._crashes[name] = progress, times
        if times < _MOST_CRASHES:
            return True
        self.sweep.note(FAILED, leg.member, message=f"crashed {times} times without progress")
        return False


def _ending(state: State[Any], ends_as: tuple[str, dict[str, Any]] | None) -> tuple[str, dict[str, Any]]:
    """The journal's event for the last state of a member's flow run."""
    if state.is_completed():
        return ENDED, {}  # before it could be told to end, perhaps
    if ends_as is not None:
        return ends_as
    message = (state.message or "").splitlines()[0] if state.message else str(state.name)
    if GateError.__name__ in message:  # a verdict, and no failure
        return ENDED, {"message": message.partition(f"{GateError.__name__}: ")[2] or message}
    if state.is_crashed():
        return CRASHED, {"message": message}
    if NotFiniteError.__name__ in message:
        return DIVERGED, {"message": message}
    return FAILED, {"message": f"{state.name}: {message}"}
