"""What a sweep asks of a server, which is played here."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import yaml
from command_line import TINY

from tasks import sweep as tasks_sweep
from ups.pipeline.sweeps.sweep import Leg, SweepRun


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
