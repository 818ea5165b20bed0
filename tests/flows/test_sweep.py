"""A sweep on a real server: its members on several workers, one of them killed; cancel; retry."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import orchestra as orchestra_module
import pytest
import yaml
from orchestra import TINY, Orchestra, wait_for

from tasks.part_of_the_chain import chain
from ups.config.schema import STAGES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

RATE, WARMUP = "training.operator.learning_rate", "training.operator.warmup_steps"
TRAJECTORIES = 20
ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


@pytest.fixture(autouse=True)
def patient(monkeypatch) -> None:
    """Nine flow runs on two cores take minutes, where others share them."""
    monkeypatch.setattr(orchestra_module, "LIMIT_SECONDS", 900.0)


@pytest.fixture
def two_workers(deployed: Orchestra) -> Iterator[list[Any]]:
    """Beside the one that all tests share, which from here on takes no more runs as long as they are there."""
    yield (workers := [deployed.start_further_worker(name) for name in ("first", "second")])
    for worker in workers:
        worker.kill()
        worker.wait()


def write(directory: Path, steps: int, **sweep: Any) -> Path:
    path = directory / "nine.yaml"
    values = {
        "base": str(Path(TINY).absolute()),
        "overrides": {
            "tracking.wandb": "disabled",
            "execution.device": "cpu",
            "training.operator.steps": steps,
            # Of this directory alone: nothing that other tests have built.
            "data.trajectories": {"train": TRAJECTORIES, "validation": 4, "test": 4},
        },
        "grid": {RATE: [5e-4, 2e-3, 8e-3], WARMUP: [0, 1, 2]},
        "at_once": 3,  # nine at once on two cores wait for each other, and for SQLite
    }
    path.write_text(yaml.safe_dump(values | sweep))
    return path


def start(orchestra: Orchestra, path: Path) -> dict[str, Any]:
    deployment = orchestra.api("GET", "/deployments/name/sweep/prod")
    parameters = {"sweep": {"file": str(path)}}
    return orchestra.api("POST", f"/deployments/{deployment['id']}/create_flow_run", parameters=parameters)


def read(orchestra: Orchestra, run: dict[str, Any]) -> dict[str, Any]:
    return orchestra.api("GET", f"/flow_runs/{run['id']}")


def members(orchestra: Orchestra, sweep: dict[str, Any]) -> list[dict[str, Any]]:
    of_it = {"parent_flow_run_id": {"any_": [sweep["id"]]}}
    return orchestra.api("POST", "/flow_runs/filter", flow_runs=of_it, limit=100)


def begun(orchestra: Orchestra) -> list[Path]:
    return orchestra.checkpoints("operator")


def built(orchestra: Orchestra, stage: str) -> list[bool]:
    """Of every run of this file's data that has a stage: whether it built it, and did not find it."""
    found = []
    for path in orchestra.root.glob("runs/*/artifacts.json"):
        configuration = yaml.safe_load((path.parent / "config.yaml").read_text())
        stages = json.loads(path.read_text())
        if configuration["data"]["trajectories"]["train"] == TRAJECTORIES and stage in stages:
            found.append(not stages[stage]["hit"])
    return found


def children(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError, IndexError):
                if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == pid:
                    found.append(int(entry.name))
    return found


def test_nine_members_on_two_workers_one_of_them_killed(deployed, two_workers, tmp_path):
    path = write(tmp_path, 300, finalists=1)
    sweep = start(deployed, path)
    wait_for("the sweep to begin", lambda: members(deployed, sweep), deployed.worker_said)
    shared = deployed.processes[1]
    os.kill(shared.pid, signal.SIGSTOP)  # the sweep's own run goes on below it
    try:
        wait_for("a training on a further worker", lambda: begun(deployed), deployed.worker_said)
        victim = next(worker for worker in two_workers if children(worker.pid))
        victim.kill()
        final = wait_for(
            "the end of the sweep",
            lambda: (run := read(deployed, sweep))["state_type"] in ENDED and run,
            deployed.worker_said,
        )
    finally:
        os.kill(shared.pid, signal.SIGCONT)
    assert final["state_type"] == "COMPLETED", final["state"]["message"]
    runs = members(deployed, sweep)
    names = [run["name"] for run in runs if run["state_type"] == "COMPLETED"]
    assert len(set(names)) == 9
    assert len(names) == 10, "each once, and the finalist's whole chain"
    assert {run["state_type"] for run in runs} == {"COMPLETED", "CRASHED"}
    assert all("sweep" in run["tags"] for run in runs)
    assert sum(built(deployed, "operator")) == 9, "every member was trained once"
    for shared in ("download", "autoencoder", "cache_encode"):
        assert sum(built(deployed, shared)) == 1, "several wanted it at the same moment"
    artifacts = deployed.api("POST", "/artifacts/filter", artifacts={"flow_run_id": {"any_": [sweep["id"]]}})
    by_key = {artifact["key"]: artifact for artifact in artifacts}
    assert set(by_key) == {"nine-sweep-plan", "nine-sweep-work", "nine-sweep-ranking", "nine-sweep-report"}
    ranking = json.loads(by_key["nine-sweep-ranking"]["data"])
    assert [row["state"] for row in ranking] == ["finished", *["trained"] * 8]
    assert "report.html" in by_key["nine-sweep-report"]["data"]
    assert deployed.stage_processes() == []


def test_cancel_of_a_sweep_cancels_its_members_and_retry_goes_on(deployed, tmp_path):
    grid = {RATE: [3e-3, 4e-3]}
    path = write(tmp_path, 100_000, grid=grid, at_once=2)
    sweep = start(deployed, path)
    before = set(begun(deployed))
    wait_for("a checkpoint", lambda: set(begun(deployed)) - before, deployed.worker_said)
    deployed.prefect("flow-run", "cancel", sweep["id"])
    wait_for("the sweep", lambda: read(deployed, sweep)["state_type"] == "CANCELLED", deployed.worker_said)
    wait_for(
        "its members",
        lambda: {run["state_type"] for run in members(deployed, sweep)} == {"CANCELLED"},
        deployed.worker_said,
    )
    assert deployed.stage_processes() == []
    first = len(members(deployed, sweep))
    state = {"type": "SCHEDULED", "name": "AwaitingRetry", "message": "Retry from the UI"}
    deployed.api("POST", f"/flow_runs/{sweep['id']}/set_state", state=state, force=True)
    wait_for(
        "members again",
        lambda: len(members(deployed, sweep)) > first and deployed.stage_processes(),
        deployed.worker_said,
    )
    wait_for(
        "a training that resumes",
        lambda: "operator resumes at step" in deployed.worker_said(),
        deployed.worker_said,
    )
    deployed.prefect("flow-run", "cancel", sweep["id"])
    wait_for(
        "the end",
        lambda: (
            {run["state_type"] for run in [read(deployed, sweep), *members(deployed, sweep)]} == {"CANCELLED"}
        ),
        deployed.worker_said,
    )
    assert deployed.stage_processes() == []


def test_every_stage_has_a_task_of_its_name_that_takes_its_inputs():
    for name, stage in STAGES.items():
        task = getattr(chain, name)
        assert len(task.fn.__code__.co_varnames[: task.fn.__code__.co_argcount]) == 1 + len(stage.inputs)
