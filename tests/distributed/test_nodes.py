"""Ranks on several machines: two agents that meet on the loopback are one agent with as many ranks, whatever ends either."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command_line import TINY, clean_environment, ups
from marked_processes import LIMIT_SECONDS, MARKER_VARIABLE, kill_with_descendants, marked, wait_until

from ups import errors
from ups.pipeline.join import join
from ups.pipeline.run import Run
from ups.pipeline.supervise import rendezvous as rendezvous_module
from ups.pipeline.supervise.launch import launch
from ups.pipeline.supervise.outcome import classify
from ups.pipeline.supervise.rendezvous import ENDPOINT_VARIABLE, Rendezvous

REPOSITORY = Path(__file__).parents[2]
PROGRAMS = REPOSITORY / "tests" / "pipeline" / "programs"
SETTINGS = {
    "execution.device": "cpu",
    "tracking.wandb": "disabled",
    "training.autoencoder.steps": 120,
    "training.autoencoder.checkpoint_every": 7,
    "training.autoencoder.log_every": 1,
}


def free_endpoint() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


class Machine:
    """A command of one of two machines."""

    def __init__(self, root: Path, command: str, endpoint: str | None) -> None:
        self.marker = uuid.uuid4().hex
        self.log = root.with_name(f"{command}-{self.marker}.txt")
        words = [f"--set={key}={value}" for key, value in {**SETTINGS, "execution.nodes": 2}.items()]
        environment = {MARKER_VARIABLE: self.marker, "PYTHONPATH": str(REPOSITORY)}
        if endpoint is not None:
            environment[ENDPOINT_VARIABLE] = endpoint
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "ups", command, TINY, "--root", root, "--until=cache_encode", *words],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=clean_environment() | environment,
            )

    def text(self) -> str:
        return self.log.read_text()

    def kill(self, which: str, number: signal.Signals) -> None:
        """Send a signal to the launcher, or to torchrun's agent."""
        module = {"launcher": "ups.pipeline.supervise.launcher", "agent": "torch.distributed.run"}[which]
        (pid,) = [
            pid
            for pid, words in marked(self.marker).items()
            if module in words and ("ups.pipeline.supervise.launcher" in words) == (which == "launcher")
        ]
        os.kill(pid, number)

    def end(self) -> int:
        """Wait for it; the exit code. Nothing of it is left."""
        code = self.process.wait(LIMIT_SECONDS)
        assert marked(self.marker) == {}, self.text()
        return code


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Machine]]:
    machines: list[Machine] = []

    def begin(command: str, endpoint: str | None = None) -> Machine:
        machines.append(Machine(tmp_path / "root", command, endpoint))
        return machines[-1]

    yield begin
    for machine in machines:
        kill_with_descendants(machine.process, machine.marker)


def wait_for(condition: Callable[[], bool], what: str, *machines: Machine) -> None:
    wait_until(condition, what, lambda: "\n---\n".join(machine.text() for machine in machines))


def started(root: Path, **overrides: Any) -> Run:
    return Run.start(
        TINY, SETTINGS | {f"execution.{k}": v for k, v in overrides.items()}, root=root, until="cache_encode"
    )


@pytest.fixture(scope="module")
def one_machine(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """What one machine with two ranks makes, by the names of the stages and of their files."""
    root = tmp_path_factory.mktemp("one")
    run = started(root, processes=2)
    for stage in run.plan:
        run.stage(stage, on_line=print)
    return artifacts(root)


def artifacts(root: Path) -> dict[str, dict[str, bytes]]:
    """But for what tells the time."""
    found = {}
    for stage in ("autoencoder", "cache_encode"):
        (sealed,) = (root / "artifacts" / stage).iterdir()
        found[f"{stage}/{sealed.name}"] = {
            str(path.relative_to(sealed)): path.read_bytes()
            for path in sealed.rglob("*")
            if path.is_file() and path.name != "manifest.json" and "logs" not in path.parts
        }
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("stopped", ["other", pytest.param("first", marks=pytest.mark.long)])
def test_two_machines_seal_what_one_does_whatever_was_killed_and_stopped_on_the_way(
    tmp_path, start, one_machine, stopped
):
    endpoint = free_endpoint()

    def step_is_logged(step: int, machine: Machine) -> Callable[[], bool]:
        return lambda: f"autoencoder {step}/120" in machine.text()

    other, first = start("join"), start("run", endpoint)
    wait_for(step_is_logged(10, first), "step 10", first, other)
    assert "autoencoder 10/120" not in other.text(), "rank 0 is on the first machine"
    other.kill("agent", signal.SIGKILL)
    assert first.end() == 1
    assert "a process was killed from outside" in first.text()

    wait_for(lambda: "waits for it to be tried again" in other.text(), "the end of the launch", other)
    first = start("run", endpoint)  # and the other machine comes by itself
    wait_for(step_is_logged(40, first), "step 40", first, other)
    assert " resumes at step " in first.text()
    (other if stopped == "other" else first).kill("launcher", signal.SIGTERM)
    assert (first.end(), other.end()) == (75, 75), first.text() + other.text()
    for machine in (first, other):
        assert "stopped after a checkpoint at step" in machine.text()

    first, other = start("run", endpoint), start("join")
    assert (first.end(), other.end()) == (0, 0), first.text() + other.text()
    made = artifacts(tmp_path / "root")
    assert made.keys() == one_machine.keys(), "ranks count wherever they are"
    for name, files in one_machine.items():
        assert made[name].keys() == files.keys()
        different = [file for file, content in files.items() if made[name][file] != content]
        assert not different, (name, different)


def test_who_waits_hears_of_a_run_that_failed_before_it_came_to_ranks(tmp_path, monkeypatch):
    """Of one that failed before there was somebody to wait it does not."""
    monkeypatch.setenv(ENDPOINT_VARIABLE, free_endpoint())

    def fail() -> Run:
        run = started(tmp_path, nodes=2)
        with pytest.raises(errors.DataError), run:
            raise errors.DataError("the file is another", where="data.path")
        return run

    known, failed = fail(), list[Run]()
    with pytest.raises(
        errors.StageError, match=r"failed on the first machine: data\.path: the file is another"
    ) as end:
        join(known.configuration, known.store, "cache_encode", on_line=lambda _: failed.append(fail()))
    assert str(end.value).startswith(f"{failed[0].directory}: ")


@pytest.mark.slow
def test_a_machine_that_does_not_come_is_missed(tmp_path, monkeypatch):
    monkeypatch.setattr(rendezvous_module, "WAIT_SECONDS", 3)
    monkeypatch.setenv(ENDPOINT_VARIABLE, free_endpoint())
    run = started(tmp_path, nodes=2)
    lines: list[str] = []
    run.stage("download", on_line=print)
    with pytest.raises(errors.PreflightError, match=r"within 3 s\n  fix: run `ups join`") as caught:
        run.stage("autoencoder", on_line=lines.append)
    assert not caught.value.retryable
    assert "for 2 machines; on the others run `ups join`" in lines[0]


def ends(work: Path, own: Path, behaviour: str, meeting: Rendezvous) -> tuple[str, str]:
    """How a launch of the stand-in of a stage ends on one machine: the error's class and text."""
    arguments = [behaviour, str(work), *(["9"] if behaviour == "die" else [])]
    returncode = launch(
        "stage",
        arguments,
        work=work,
        processes=1,
        log_file=own / "log.txt",
        on_line=print,
        environment={"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{PROGRAMS}:{REPOSITORY}"},
        rendezvous=meeting,
        grace_seconds=1.0,
    )
    with pytest.raises(errors.UpsError) as caught:
        classify(returncode, work)
    return type(caught.value).__name__, str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("behaviour", "kind", "text"),
    [("die", "ProcessKilled", "rank 1 by SIGKILL"), ("value-error", "StageError", "rank 1: ValueError: a wrong value")],
)  # fmt: skip
def test_ranks_that_have_not_met_hear_of_the_end_of_another_machine(
    tmp_path, monkeypatch, behaviour, kind, text
):
    """The first machine's rank does not communicate, and would run for ever."""
    monkeypatch.setenv(ENDPOINT_VARIABLE, free_endpoint())
    meeting = Rendezvous.here(2)
    work = tmp_path / "work"
    verdicts: list[tuple[str, str]] = []
    first = threading.Thread(
        target=lambda: verdicts.append(ends(work, tmp_path / "first", "ignore", meeting))
    )
    first.start()
    file = work / rendezvous_module.RENDEZVOUS_FILE
    wait_until(file.exists, "the first machine", lambda: "")
    announced = Rendezvous(**json.loads(file.read_text()))
    verdicts.append(ends(work, tmp_path / "other", behaviour, replace(announced, hosts=False)))
    first.join(LIMIT_SECONDS)
    assert len(verdicts) == 2
    for found, words in verdicts:
        assert found == kind
        assert text in words
    assert not file.exists()


@pytest.mark.parametrize(
    "endpoint", ["", "host", "host:", ":1", "two words:1", "host:port", "127.0.0.1:99999"]
)
def test_an_endpoint_that_is_none_is_refused_before_anything_is_done(tmp_path, monkeypatch, endpoint):
    monkeypatch.setenv(ENDPOINT_VARIABLE, endpoint)
    with pytest.raises(errors.PreflightError, match=r"UPS_ENDPOINT: .*\n  fix: "):
        started(tmp_path, nodes=2)
    assert not (tmp_path / "runs").exists()


def test_a_port_that_is_taken_is_refused(monkeypatch):
    with socket.create_server(("", 0)) as taken:
        monkeypatch.setenv(ENDPOINT_VARIABLE, f"[::1]:{taken.getsockname()[1]}")
        with pytest.raises(errors.PreflightError, match="in use"):
            Rendezvous.here(2)


@pytest.mark.parametrize("host", ["node1", "zz-9", "10.0.0.7", "[fe80::1]"])
def test_the_first_machine_has_the_first_rank(host):
    """torchrun numbers agents in the order of their addresses."""
    first = Rendezvous(f"{host}:1", 2, "x", 1)
    addresses = [
        option.partition("=")[2]
        for each in (first, replace(first, hosts=False))
        for option in each.agent_options()
        if option.startswith("--local-addr=")
    ]
    assert addresses[0] == host.strip("[]")
    assert addresses == sorted(addresses)


def test_a_word_of_a_rendezvous_that_is_over_is_not_followed():
    assert not Rendezvous(free_endpoint(), 2, "x", 1).listens()


def test_there_is_nothing_to_join_in_a_run_on_one_machine(tmp_path):
    done = ups("join", TINY, "--root", tmp_path)
    assert done.returncode == 2
    assert "execution.nodes: is 1" in done.stderr
