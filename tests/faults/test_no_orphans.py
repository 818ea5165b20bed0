"""Whatever is killed, nothing of a launch runs on, and the verdict says what happened."""

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from marked_processes import LIMIT_SECONDS, kill_with_descendants, marked, wait_until

from ups.pipeline.supervise.launch import launch

PROGRAMS = Path(__file__).parents[1] / "pipeline" / "programs"
REPOSITORY = Path(__file__).parents[2]

PLAIN_OR_RANKS = pytest.mark.parametrize("processes", [0, pytest.param(2, marks=pytest.mark.slow)])


class Flow:
    """A parent process with a launch below it."""

    def __init__(self, work: Path, behaviour: str, processes: int, grace: float) -> None:
        work.mkdir()
        self.work = work
        self.num_stage_processes = max(1, processes)
        self.marker = uuid.uuid4().hex
        self.process = subprocess.Popen(
            [sys.executable, "-m", "parent", behaviour, str(work), str(processes), str(grace), self.marker],
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{PROGRAMS}:{REPOSITORY}"},
        )
        wait_until(self._is_ready, "the stage to start", self.log)

    def _is_ready(self) -> bool:
        files = [self.work / f"ready-{rank}" for rank in range(self.num_stage_processes)]
        return all(file.exists() and file.read_text() for file in files)

    def log(self) -> str:
        file = self.work / "log.txt"
        return file.read_text() if file.exists() else "no log"

    def rank(self, number: int = 0) -> int:
        return int((self.work / f"ready-{number}").read_text())

    def agent(self) -> int:
        return parent_of(self.rank())

    def launcher(self) -> int:
        return parent_of(self.agent()) if self.num_stage_processes > 1 else parent_of(self.rank())

    def survivors(self) -> list[int]:
        """The processes of this launch."""
        return list(marked(self.marker))

    def verdict(self) -> dict:
        """How it ended, once the parent has ended and nothing is left."""
        self.process.wait(LIMIT_SECONDS)
        assert self.survivors() == []
        return json.loads((self.work / "verdict.json").read_text())


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def expect_nothing_left(flow: Flow) -> None:
    wait_until(lambda: not flow.survivors(), "all processes to end", flow.log)


@pytest.fixture
def start_flow(tmp_path: Path) -> Iterator[Callable[..., Flow]]:
    flows: list[Flow] = []

    def start(behaviour: str, *, processes: int, grace: float = 20.0) -> Flow:
        flows.append(Flow(tmp_path / "work", behaviour, processes, grace))
        return flows[-1]

    yield start
    for flow in flows:
        kill_with_descendants(flow.process, flow.marker)


@PLAIN_OR_RANKS
def test_sigterm_to_the_launcher_makes_the_stage_write_a_checkpoint(start_flow, processes):
    flow = start_flow("checkpoint", processes=processes)
    os.kill(flow.launcher(), signal.SIGTERM)
    verdict = flow.verdict()
    assert (verdict["returncode"], verdict["kind"]) == (75, "Interrupted")
    assert "step" in verdict["text"]


@PLAIN_OR_RANKS
def test_a_killed_parent_leaves_a_checkpoint_and_no_process(start_flow, processes):
    flow = start_flow("checkpoint", processes=processes)
    flow.process.kill()
    expect_nothing_left(flow)
    assert json.loads((flow.work / "interrupted.json").read_text())["step"] > 0
    assert "rank 0: checkpoint" in flow.log(), "the log goes on without its reader"


@pytest.mark.slow
@PLAIN_OR_RANKS
def test_the_next_launch_waits_until_the_processes_of_a_killed_parent_have_ended(start_flow, processes):
    flow = start_flow("ignore", processes=processes, grace=1.5)
    flow.process.kill()
    lines: list[str] = []
    survivors_at_start: list[int] = []

    def on_line(line: str) -> None:
        lines.append(line)
        survivors_at_start.extend(flow.survivors())

    environment = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROGRAMS)}
    launch(
        "stage",
        ["print", str(flow.work)],
        work=flow.work,
        processes=None,
        log_file=flow.work / "another-log.txt",
        on_line=on_line,
        environment=environment,
    )
    assert lines[0] == "first"
    assert survivors_at_start == []


@PLAIN_OR_RANKS
def test_ctrl_c_in_the_parent_ends_the_stage_before_the_parent(start_flow, processes):
    flow = start_flow("checkpoint", processes=processes)
    flow.process.send_signal(signal.SIGINT)
    flow.process.wait(LIMIT_SECONDS)
    assert flow.survivors() == []
    assert (flow.work / "interrupted.json").exists()


@PLAIN_OR_RANKS
def test_a_killed_launcher_leaves_no_process(start_flow, processes):
    flow = start_flow("checkpoint", processes=processes)
    os.kill(flow.launcher(), signal.SIGKILL)
    verdict = flow.verdict()
    assert verdict["returncode"] == -signal.SIGKILL
    # torchrun's agent is told by SIGTERM and lets its ranks write a checkpoint; a plain stage is killed.
    assert verdict["kind"] == ("Interrupted" if processes else "ProcessKilled")


@pytest.mark.slow
@PLAIN_OR_RANKS
def test_what_ignores_sigterm_is_killed_after_the_grace(start_flow, processes):
    flow = start_flow("ignore", processes=processes, grace=1.0)
    # every stage process has a worker in a session of its own
    wait_until(lambda: len(flow.survivors()) >= 1 + 2 * max(1, processes), "the workers", flow.log)
    flow.process.send_signal(signal.SIGINT)
    flow.process.wait(LIMIT_SECONDS)
    assert flow.survivors() == []


@pytest.mark.slow
def test_a_killed_agent_leaves_no_rank(start_flow):
    flow = start_flow("ignore", processes=2)
    os.kill(flow.agent(), signal.SIGKILL)
    verdict = flow.verdict()
    assert (verdict["returncode"], verdict["kind"]) == (1, "ProcessKilled")
    assert "agent by SIGKILL" in verdict["text"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "kind"), [(signal.SIGKILL, "ProcessKilled"), (signal.SIGSEGV, "StageError")]
)
def test_a_rank_that_dies_ends_the_one_that_waits_for_it(start_flow, number, kind):
    flow = start_flow("all-reduce", processes=2)
    os.kill(flow.rank(1), number)
    verdict = flow.verdict()
    assert (verdict["returncode"], verdict["kind"]) == (1, kind)
    assert f"rank 1 by {number.name}" in verdict["text"]
