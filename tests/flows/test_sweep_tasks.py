"""What a sweep asks of a server, which is played here."""

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import yaml
from command_line import TINY
from prefect.client.schemas.objects import State, StateType
from prefect.states import Failed, Pending, Running, Scheduled

from tasks import sweep as tasks_sweep
from ups.pipeline.sweeps.sweep import ENDED, FAILED, Leg, SweepRun


def sweep_below(root: Path) -> SweepRun:
    path = root / "some.yaml"
    root.mkdir()
    grid = {"training.operator.learning_rate": [1e-3, 2e-3]}
    path.write_text(yaml.safe_dump({"base": str(TINY), "grid": grid}))
    return SweepRun(path, root)


def test_flow_runs_of_the_same_sweep_below_another_root_are_not_taken_for_its_own(tmp_path, monkeypatch):
    """They have trained, or train, where this root does not see it."""
    started: list[str] = []

    def start(_name: str, *, idempotency_key: str, **_: Any) -> Any:
        started.append(idempotency_key)
        return SimpleNamespace(id=uuid4())

    def launch(sweep: SweepRun, legs: list[Leg]) -> None:
        tasks_sweep._Supervision(client, sweep)._launch(legs[0])

    client: Any = SimpleNamespace(read_flow_runs=lambda **_: [])
    monkeypatch.setattr(tasks_sweep, "run_deployment", start)
    monkeypatch.setattr(tasks_sweep, "get_run_logger", lambda: None)
    first, second = (sweep_below(tmp_path / name) for name in ("one", "other"))
    assert first.name == second.name
    for sweep in (first, second, first):
        sweep.conduct(launch)
    assert started[0] != started[1]
    assert started[0] == started[2], "nothing has come to an end"


class Server:
    """Flow runs of members; tells of as many at once as a server does, and leaves one of them in its state."""

    def __init__(self, states: list[State[Any]]) -> None:
        self.runs = {uuid4(): state for state in states}
        self.stubborn = next(iter(self.runs))

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def read_flow_runs(self, flow_run_filter: Any) -> list[Any]:
        wanted = flow_run_filter.state.type.any_
        found = [
            SimpleNamespace(id=id, state=state) for id, state in self.runs.items() if state.type in wanted
        ]
        return found[:200]

    def set_flow_run_state(self, id: UUID, state: State[Any]) -> None:
        if id != self.stubborn:
            self.runs[id] = state


def test_all_members_of_a_large_sweep_are_cancelled(monkeypatch):
    server = Server(
        [
            *(Running() for _ in range(150)),
            *(Pending() for _ in range(100)),
            *(Scheduled() for _ in range(400)),
        ]
    )
    monkeypatch.setattr(tasks_sweep, "get_client", lambda **_: server)
    sweep_run: Any = SimpleNamespace(id=uuid4())
    tasks_sweep.cancel_members(None, sweep_run, Running())
    left = Counter(state.type for state in server.runs.values())
    assert left == {StateType.RUNNING: 1, StateType.CANCELLING: 249, StateType.CANCELLED: 400}


def test_a_flow_run_that_failed_by_its_gates_is_a_member_that_has_ended():
    prefix = "Flow run encountered an exception: "
    missed = Failed(message=f"{prefix}GateError: gates: operator mass_drift is 1, not at most 0")
    assert tasks_sweep._ending(missed, None) == (
        ENDED, {"message": "gates: operator mass_drift is 1, not at most 0"},
    )  # fmt: skip
    event, _ = tasks_sweep._ending(Failed(message=f"{prefix}StageError: evaluate: no"), None)
    assert event == FAILED
