"""A sweep on a real server: its members on several workers, one of them killed; cancel; retry."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import orchestra as orchestra_module
import pytest
import yaml
from orchestra import TINY, Orchestra, wait_for

from tasks.part_of_the_chain import chain
from ups.artifacts.files import read_records
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
def further_workers(deployed: Orchestra) -> Iterator[Callable[[], list[Any]]]:
    """Starts two, and has the worker that all tests share take no runs as long as they are there; its own go on."""
    workers: list[Any] = []
    shared = deployed.processes[1]

    def begin() -> list[Any]:
        os.kill(shared.pid, signal.SIGSTOP)
        workers.extend(deployed.start_further_worker(name) for name in ("first", "second"))
        return workers

    yield begin
    os.kill(shared.pid, signal.SIGCONT)
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
            # Hundreds of lines a second would be all that a server on SQLite does.
            "training.operator.log_every": max(5, steps // 100),
            "training.operator.validate_every": max(10, steps // 100),
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


def all_cancelled(orchestra: Orchestra, sweep: dict[str, Any]) -> bool:
    time.sleep(2)
    with suppress(httpx.ReadTimeout):
        return {run["state_type"] for run in [read(orchestra, sweep), *members(orchestra, sweep)]} == {
            "CANCELLED"
        }
    return False


def ended(orchestra: Orchestra, sweep: dict[str, Any]) -> dict[str, Any] | None:
    time.sleep(2)
    with suppress(httpx.ReadTimeout):  # SQLite, on a busy machine; it is asked again
        run = read(orchestra, sweep)
        return run if run["state_type"] in ENDED else None
    return None


def journal(orchestra: Orchestra) -> list[dict[str, Any]]:
    """Of all sweeps of this root: a file, where the server has enough to do."""
    files = orchestra.root.glob("sweeps/nine-*/journal.jsonl")
    return [record for path in files for record in read_records(path)]


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


@pytest.mark.long
def test_nine_members_on_two_workers_one_of_them_killed(deployed, further_workers, tmp_path):
    path = write(tmp_path, 300, finalists=1)
    sweep = start(deployed, path)
    wait_for("the sweep to begin", lambda: journal(deployed), deployed.worker_said)
    workers = further_workers()

    def at_work() -> list[Any]:
        return begun(deployed) and [worker for worker in workers if children(worker.pid)]

    victim, *_ = wait_for("a training, and flow runs of a further worker", at_work, deployed.worker_said)
    victim.kill()
    final = wait_for("the end of the sweep", lambda: ended(deployed, sweep), deployed.worker_said)
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


@pytest.mark.long
def test_cancel_of_a_sweep_cancels_its_members_and_retry_goes_on(deployed, tmp_path):
    grid = {RATE: [3e-3, 4e-3]}
    path = write(tmp_path, 100_000, grid=grid, at_once=2)
    sweep = start(deployed, path)
    before = set(begun(deployed))
    wait_for("a checkpoint", lambda: set(begun(deployed)) - before, deployed.worker_said)
    deployed.prefect("flow-run", "cancel", sweep["id"])
    wait_for("it and its members", lambda: all_cancelled(deployed, sweep), deployed.worker_said)
    assert deployed.stage_processes() == []
    first = len(journal(deployed))
    state = {"type": "SCHEDULED", "name": "AwaitingRetry", "message": "Retry from the UI"}
    deployed.api("POST", f"/flow_runs/{sweep['id']}/set_state", state=state, force=True)
    wait_for(
        "members again",
        lambda: len(journal(deployed)) > first and deployed.stage_processes(),
        deployed.worker_said,
    )
    wait_for(
        "a training that resumes",
        lambda: "operator resumes at step" in deployed.worker_said(),
        deployed.worker_said,
    )
    deployed.prefect("flow-run", "cancel", sweep["id"])
    wait_for("the end", lambda: all_cancelled(deployed, sweep), deployed.worker_said)
    assert deployed.stage_processes() == []


def test_every_stage_has_a_task_of_its_name_that_takes_its_inputs():
    for name, stage in STAGES.items():
        task = getattr(chain, name)
        assert len(task.fn.__code__.co_varnames[: task.fn.__code__.co_argcount]) == 1 + len(stage.inputs)
