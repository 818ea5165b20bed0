"""A real Prefect server, a real worker and flows, all of them processes of their own."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest

CHECKOUT = Path(__file__).parents[2]
TINY = "configs/burgers_tiny.yaml"
STAGES = ("download", "autoencoder", "cache-encode", "operator", "diffusion", "consistency", "evaluate")
LIMIT_SECONDS = 300.0  # far above what is needed: a busy machine must not fail a test

ROLES = {"launcher": "launcher\0", "agent": "process\0SIGTERM\0", "rank": "process\0SIGKILL\0"}
"""How the command lines of a launch's processes go on; a stage without ranks looks like one rank."""

LOG_RECORD = re.compile(r"^\d\d:\d\d:\d\d\.\d+ \| ", re.MULTILINE)


def wait_for(
    what: str, find: Callable[[], Any], told: Callable[[], str] = str, seconds: float | None = None
) -> Any:
    """The first true value of `find`, within so many seconds, or LIMIT_SECONDS."""
    seconds = LIMIT_SECONDS if seconds is None else seconds  # as it is now: a test of many processes has more
    gives_up_at = time.monotonic() + seconds
    while not (found := find()):
        if time.monotonic() > gives_up_at:
            pytest.fail(f"waited {seconds:g} s for {what}\n{told()}")
        time.sleep(0.1)
    return found


def start_flow(environment: Mapping[str, str], *assignments: str) -> subprocess.Popen[str]:
    """`python -m flows` with the tiny configuration, in the checkout and in a process group of its own."""
    command = [sys.executable, "-m", "flows", TINY]
    for assignment in assignments:
        command += ["--set", assignment]
    return subprocess.Popen(
        command,
        cwd=CHECKOUT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip


def end(process: subprocess.Popen[bytes]) -> None:
    """In order, or else by SIGKILL."""
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def asked(**overrides: Any) -> str:
    """The flow's parameter as a command gives it."""
    return json.dumps({"config": "burgers_tiny", "overrides": overrides})


def clean_environment() -> dict[str, str]:
    """The environment without the user's settings of Prefect and of this library."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "UPS_"))}


class Orchestra:
    """Server, worker and flows, with their own Prefect home and their own root."""

    def __init__(self, directory: Path, **settings: str) -> None:
        """settings: more variables of the environment."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}/api"
        self.root = directory / "root"
        self.server_log = directory / "server.log"
        self.worker_log = directory / "worker.log"
        self.environment = (
            clean_environment()
            | {
                "PREFECT_HOME": str(directory / "prefect"),
                "PREFECT_API_URL": self.url,
                "DO_NOT_TRACK": "1",
                "PREFECT_WORKER_QUERY_SECONDS": "1",
                "UPS_ROOT": str(self.root),
                "OMP_NUM_THREADS": "1",
            }
            | settings
        )
        self.processes: list[subprocess.Popen[bytes]] = []
        try:
            self.start_server()
        except BaseException:
            self.stop()  # nobody else can: there is no orchestra yet
            raise

    def _is_healthy(self) -> bool:
        with suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/health").status_code == 200
        return False

    def start_server(self) -> None:
        """Also again, after it was killed: at the same port, with the same database."""
        arguments = ("server", "start", "--port", str(self._port), "--no-ui")
        self.server = self._start(self.server_log, *arguments)
        try:
            wait_for("the server", self._is_healthy, self.server_log.read_text)
        except pytest.fail.Exception:
            end(self.server)  # no fixture has it yet
            raise

    def _start(self, log: Path, *arguments: str) -> subprocess.Popen[bytes]:
        with log.open("ab") as output:
            self.processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", "prefect", *arguments],
                    cwd=CHECKOUT, env=self.environment, stdout=output, stderr=output,
                    # Workers turn SIGTERM into SIGINT, which a shell's background jobs ignore.
                    preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
                )
            )  # fmt: skip
        return self.processes[-1]

    def prefect(self, *arguments: str) -> str:
        """Output of a command of Prefect's, which has to end well."""
        done = self.command(*arguments)
        assert done.returncode == 0, f"{done.stdout}\nworker:\n{self.worker_said()}"
        return done.stdout

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command of Prefect's, run in the checkout."""
        return self.module("prefect", *arguments)

    def module(self, *module: str) -> subprocess.CompletedProcess[str]:
        """`python -m module`, in the checkout, where Prefect's settings are."""
        return subprocess.run(
            [sys.executable, "-m", *module],
            cwd=CHECKOUT, env=self.environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            check=False,
        )  # fmt: skip

    def deploy(self) -> None:
        """All deployments, as `make deploy` registers them."""
        done = self.module("deployments.deploy")
        assert done.returncode == 0, done.stdout

    def start_worker(self) -> None:
        self.worker = self._start(self.worker_log, "worker", "start", "--pool", "ups", "--type", "process")

    def start_further_worker(self, name: str) -> subprocess.Popen[bytes]:
        """One that has two flow runs at a time."""
        log = self.worker_log.with_name(f"{name}.log")
        return self._start(log, "worker", "start", "--pool", "ups", "--name", name, "--limit", "2")

    def worker_said(self) -> str:
        return self.worker_log.read_text() if self.worker_log.exists() else ""

    def flow(self, *assignments: str, **changes: str | None) -> subprocess.Popen[str]:
        """`python -m flows` on this server and root; a changed variable of value None is removed."""
        changed = self.environment | changes
        return start_flow({name: value for name, value in changed.items() if value is not None}, *assignments)

    def api(self, method: str, path: str, **json: Any) -> Any:
        """What the server answers; a busy SQLite says 503 or nothing, a lost database 500, and its own
        clients ask again too."""

        def ask() -> httpx.Response | None:
            try:
                answer = httpx.request(method, f"{self.url}{path}", json=json or None, timeout=60)
            except httpx.ReadTimeout:
                return None
            passing = {httpx.codes.SERVICE_UNAVAILABLE, httpx.codes.INTERNAL_SERVER_ERROR}
            return None if answer.status_code in passing else answer

        answer = wait_for(f"{method} {path}", ask).raise_for_status()
        return answer.json() if answer.content else None

    def latest_flow_run(self) -> dict[str, Any]:
        """Of those that have begun: others wait for their time."""
        begun = {"start_time": {"is_null_": False}}
        return self.api("POST", "/flow_runs/filter", sort="START_TIME_DESC", limit=1, flow_runs=begun)[0]

    def run(self, overrides: dict[str, Any]) -> dict[str, Any]:
        """A flow run of the tiny configuration, for the worker."""
        return self.create_flow_run({"config": TINY, "overrides": overrides})

    def create_flow_run(self, experiment: dict[str, Any], **named: str) -> dict[str, Any]:
        """What the form of the UI sends, with a name where it has one."""
        deployment = self.api("GET", "/deployments/name/burgers-upt/demo")
        path = f"/deployments/{deployment['id']}/create_flow_run"
        return self.api("POST", path, parameters={"experiment": experiment}, **named)

    def cancel(self, flow_run: dict[str, Any]) -> None:
        """What the button of the UI sends."""
        state = {"type": "CANCELLING", "name": "Cancelling"}
        self.api("POST", f"/flow_runs/{flow_run['id']}/set_state", state=state)

    def retry(self, flow_run: dict[str, Any]) -> None:
        """What the button of the UI sends."""
        state = {"type": "SCHEDULED", "name": "AwaitingRetry", "message": "Retry from the UI"}
        self.api("POST", f"/flow_runs/{flow_run['id']}/set_state", state=state, force=True)

    def ended(self, flow_run: dict[str, Any]) -> str | None:
        """The name of its state, if that is a last one."""
        run = self.api("GET", f"/flow_runs/{flow_run['id']}")
        final = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
        return run["state_name"] if run["state_type"] in final else None

    def final_state(self, flow_run: dict[str, Any]) -> str:
        return wait_for("the end of the run", lambda: self.ended(flow_run), self.worker_said)

    def engine(self) -> int:
        """The process that runs the flow: the launcher has its number on the command line."""
        [launcher] = wait_for("a launcher", lambda: self.stage_processes("launcher"))
        words = Path(f"/proc/{launcher}/cmdline").read_text().split("\0")
        [parent] = [word for word in words if word.startswith("--parent=")]
        return int(parent.removeprefix("--parent="))

    def task_runs(self, flow_run: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """Task runs by name, of each the last, once all have reached the server: their states travel as events, behind
        the flow's."""

        def all_ended() -> list[dict[str, Any]]:
            runs = self.api("POST", "/task_runs/filter", flow_runs={"id": {"any_": [flow_run["id"]]}})
            ended = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
            return runs if runs and all(run["state_type"] in ended for run in runs) else []

        runs = wait_for("the task runs' states", all_ended)
        return {run["name"]: run for run in sorted(runs, key=lambda run: run["expected_start_time"])}

    def stage_processes(self, role: str = "") -> list[int]:
        """Those that work below this root: all, or of a role, one of ROLES."""
        begin = "ups.pipeline.supervise." + ROLES.get(role, "")
        return [
            pid
            for pid, command in self._processes(str(self.root / "artifacts" / ".work")).items()
            if command.partition("\0-m\0")[2].startswith(begin)
        ]

    def mirrors(self) -> list[int]:
        """W&B mirrors of runs below this root."""
        return list(self._processes(f"ups.tracking\0{self.root}"))

    def _processes(self, on_the_command_line: str) -> dict[int, str]:
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                with suppress(OSError):  # it ended while we looked
                    command = (entry / "cmdline").read_bytes().decode()
                    if on_the_command_line in command:
                        found[int(entry.name)] = command
        return found

    def checkpoints(self, stage: str) -> list[Path]:
        return sorted(self.root.glob(f"artifacts/.work/{stage}/*/checkpoints/step-*"))

    def artifact(self, stage: str, run: Path) -> Path:
        """The sealed artifact that a run used."""
        return (run / json.loads((run / "artifacts.json").read_text())[stage]["path"]).resolve()

    def runs(self) -> list[Path]:
        """Directories, the oldest first."""
        return sorted((self.root / "runs").iterdir())

    def first_run(self) -> Path:
        return self.runs()[0]

    def latest_run(self) -> Path:
        return self.runs()[-1]

    def errors_in_the_servers_log(self) -> list[str]:
        """A broken dependency shows nowhere else: the server looks healthy while its schedules never fire.

        SQLite's lock is another matter: a busy machine meets it, and a standing server has Postgres.
        """
        text = self.server_log.read_text()
        starts = [match.start() for match in LOG_RECORD.finditer(text)] + [len(text)]
        records = [text[start:end] for start, end in pairwise(starts)]
        return [
            record
            for record in records
            if re.search(r"\| (ERROR|CRITICAL) ", record)
            and "database is locked" not in record
            and "transient server error" not in record
        ]

    def stop(self) -> None:
        """End the worker before the server, and each by its own process."""
        for process in reversed(self.processes):
            end(process)
