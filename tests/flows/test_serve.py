"""`python -m deployments.serve`: what it refuses, what it brings up, and that it leaves nothing behind."""

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from marked_processes import MARKER_VARIABLE, kill_with_descendants, marked
from orchestra import CHECKOUT, clean_environment, wait_for
from postgres import PASSWORD, Postgres
from prefect.blocks.system import Secret
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_SERVER_API_HOST,
    PREFECT_SERVER_API_PORT,
    temporary_settings,
)

from deployments import serve, zombies
from deployments.server import connected
from tasks.gpu import LIMIT
from tasks.report_links import REPORTS_URL
from ups.errors import PreflightError

SECRET = "wandb-secret-90b1"
CHAIN_SECONDS = 400.0  # far above the half minute that the tiny chain takes


def test_a_taken_port_is_named():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        with (
            temporary_settings({PREFECT_SERVER_API_PORT: port}),
            pytest.raises(PreflightError, match=f"127.0.0.1:{port}: cannot be listened on") as refused,
        ):
            serve.serve()
    assert "PREFECT_SERVER_API_PORT" in str(refused.value)


def test_another_server_in_the_environment_is_not_passed_over():
    with (
        temporary_settings({PREFECT_API_URL: "http://elsewhere/api", PREFECT_SERVER_API_PORT: 9}),
        pytest.raises(PreflightError, match="PREFECT_API_URL=http://elsewhere/api: names another server"),
    ):
        serve.serve()


@pytest.mark.parametrize("scheme", ["postgresql+asyncpg", "postgresql+nothing", "nonsense"])
def test_a_database_that_does_not_answer_is_named_without_its_password(monkeypatch, scheme):
    monkeypatch.setenv(serve.DATABASE, f"{scheme}://prefect:{PASSWORD}@127.0.0.1:9/prefect")
    with (
        temporary_settings({PREFECT_SERVER_API_PORT: 9}),
        pytest.raises(PreflightError, match="does not answer") as refused,
    ):
        serve.serve()
    assert f"{serve.DATABASE}={scheme}://prefect:***@127.0.0.1:9/prefect" in str(refused.value)
    assert PASSWORD not in str(refused.value)


def test_reports_are_served_where_a_link_to_this_machine_leads_to_it(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("UPS_ROOT", str(tmp_path))
    monkeypatch.setenv(REPORTS_URL, "")  # so that what is set is undone
    started = []
    monkeypatch.setattr(serve, "start", lambda *command: started.append(command) or "part")
    with temporary_settings({PREFECT_SERVER_API_HOST: "0.0.0.0"}):
        assert serve._serve_reports() is None
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with temporary_settings({PREFECT_SERVER_API_PORT: port - 1}):
            assert serve._serve_reports() is None
    assert f"no links to reports in the UI: 127.0.0.1:{port}" in capsys.readouterr().out
    assert started == []
    assert not os.environ[REPORTS_URL]
    with temporary_settings({PREFECT_SERVER_API_PORT: port - 1}):
        assert serve._serve_reports() == "part"
    assert os.environ[REPORTS_URL] == f"http://127.0.0.1:{port}"
    assert started


class Served:
    """`make serve` in directories of its own, and all processes that it starts."""

    def __init__(self, directory: Path, database: str | None = None) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/api"
        self.directory = directory
        self.root = directory / "root"
        self.log = directory / "serve.log"
        self.marker = directory.name + str(self.port)
        self.environment = clean_environment() | {
            "PREFECT_HOME": str(directory / "prefect"),
            "PREFECT_SERVER_API_PORT": str(self.port),
            "PREFECT_SERVER_UI_ENABLED": "false",
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "UPS_ROOT": str(self.root),
            "OMP_NUM_THREADS": "1",
            MARKER_VARIABLE: self.marker,
        }
        if database:
            self.environment[serve.DATABASE] = database
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "deployments.serve"],
                cwd=CHECKOUT, env=self.environment, stdout=output, stderr=output,
            )  # fmt: skip

    def wait_until_up(self) -> None:
        wait_for(
            "server and worker",
            lambda: "are up" in self.said() or self.process.poll(),
            self.said,
            serve.START_SECONDS,
        )
        assert self.process.poll() is None, self.said()

    def said(self) -> str:
        return self.log.read_text()

    def run(self, *module: str) -> subprocess.CompletedProcess[str]:
        # Whoever asks this server is none of its processes.
        environment = self.environment | {"PREFECT_API_URL": self.url, MARKER_VARIABLE: "another"}
        return subprocess.run(
            [sys.executable, "-m", *module],
            cwd=CHECKOUT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            check=False,
        )  # fmt: skip

    def ask(self, method: str, path: str, **body: Any) -> Any:
        answer = httpx.request(method, f"{self.url}{path}", json=body or None, timeout=60).raise_for_status()
        return answer.json() if answer.content else None

    def registered(self) -> dict[str, Any]:
        """What `make deploy` makes, by name, with the server's own numbers."""
        registered = {}
        for what in ("deployments", "automations", "work_pools", "v2/concurrency_limits"):
            found = self.ask("POST", f"/{what}/filter", limit=100)
            names = sorted({one["name"] for one in found})  # several flows have a deployment `prod`
            registered[what] = {
                name: sorted(one["id"] for one in found if one["name"] == name) for name in names
            }
        return registered

    def start_run(self, **overrides: Any) -> str:
        deployment = self.ask("GET", "/deployments/name/burgers-upt/prod")["id"]
        parameters = {"experiment": {"config": "burgers_tiny", "overrides": overrides}}
        return self.ask("POST", f"/deployments/{deployment}/create_flow_run", parameters=parameters)["id"]

    def processes(self, words: str) -> list[int]:
        return [pid for pid, command in marked(self.marker).items() if words in " ".join(command)]

    def wait_for_the_end_of_all(self) -> None:
        wait_for("all processes to end", lambda: not marked(self.marker), lambda: str(marked(self.marker)))


@contextmanager
def served(directory: Path, database: str | None = None) -> Iterator[Served]:
    running = Served(directory, database)
    try:
        running.wait_until_up()
        yield running
    finally:
        kill_with_descendants(running.process, running.marker)


NEVER_ENDS = {"training.consistency.steps": 1_000_000, "execution.device": "cpu"}


def _interrupted(root: Path) -> list[Path]:
    return list(root.glob("artifacts/.work/consistency/*/interrupted.json"))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_server_worker_and_deployments_on_postgresql(sealed_root, tmp_path):
    for stage in ("consistency", "evaluate"):  # to be built: a training, and what comes behind it
        shutil.rmtree(sealed_root / "artifacts" / stage)
    with closing(Postgres()) as postgres, served(tmp_path, postgres.url) as running:
        again = running.run("deployments.serve")
        assert again.returncode == 3, again.stdout
        assert "a Prefect server answers there already" in again.stdout

        _register_twice(running)
        _run_the_chain_with_secrets(running)

        flow_run = running.start_run(**NEVER_ENDS)
        wait_for(
            "a checkpoint",
            lambda: list(running.root.glob("artifacts/.work/consistency/*/checkpoints/step-*")),
            running.said,
            CHAIN_SECONDS,
        )
        running.process.terminate()
        assert running.process.wait(300) == 0, running.said()
        assert marked(running.marker) == {}
        [interrupted] = _interrupted(running.root)
        assert json.loads(interrupted.read_text())["step"] > 0
        # The server is gone; what it was told is in its database.
        assert asyncio.run(_state(postgres.url, flow_run)) == "CRASHED"


def _register_twice(running: Served) -> None:
    """The second time nothing is new, and what somebody has set stays."""
    first = running.run("deployments.deploy")
    assert first.returncode == 0, first.stdout
    registered = running.registered()
    assert {"prod", "demo", "2task"} <= set(registered["deployments"])
    assert set(registered["automations"]) == {zombies.AUTOMATION.name}
    running.ask("PATCH", f"/v2/concurrency_limits/{LIMIT}", limit=2)
    [[automation]] = registered["automations"].values()
    running.ask("PATCH", f"/automations/{automation}", enabled=False)

    second = running.run("deployments.deploy")
    assert second.returncode == 0, second.stdout
    assert running.registered() == registered
    assert running.ask("GET", f"/v2/concurrency_limits/{LIMIT}")["limit"] == 2
    assert not running.ask("GET", f"/automations/{automation}")["enabled"]


def _run_the_chain_with_secrets(running: Served) -> None:
    """They reach whatever a run starts, and neither a file nor a log."""
    with connected(running.url):
        Secret(value=SECRET).save("wandb-api-key")
    flow_run = running.start_run(**{"execution.device": "cpu"})
    [mirror] = wait_for("the W&B mirror", lambda: running.processes("ups.tracking"), running.said)
    environment = dict(
        entry.split("=", 1)
        for entry in Path(f"/proc/{mirror}/environ").read_text().split("\0")
        if "=" in entry
    )
    assert environment["WANDB_API_KEY"] == SECRET
    assert serve.DATABASE not in environment

    final = {"COMPLETED", "FAILED", "CRASHED"}
    ended = wait_for(
        "the end of the run",
        lambda: (run := running.ask("GET", f"/flow_runs/{flow_run}")) and run["state_type"] in final and run,
        running.said,
        CHAIN_SECONDS,
    )
    assert ended["state_name"] == "Completed", ended["state"]["message"]
    assert "Secret" not in running.said()
    secrets = re.compile(f"{SECRET}|{PASSWORD}".encode())
    files = [path for path in running.directory.rglob("*") if path.is_file()]
    assert {running.log.name, "env.json", "report.html"} <= {path.name for path in files}
    assert [path for path in files if secrets.search(path.read_bytes())] == []
    logs = running.ask("POST", "/logs/filter", limit=200)
    assert logs
    assert secrets.search(json.dumps(logs).encode()) is None


async def _state(database: str, flow_run: str) -> str:
    connection = await asyncpg.connect(database.replace("+asyncpg", ""))
    try:
        return await connection.fetchval("select state_type from flow_run where id = $1", flow_run)
    finally:
        await connection.close()


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_serve_that_is_killed_leaves_nothing_behind(tmp_path):
    """On SQLite. Its server and its worker get the kernel's signal at once; the stage writes its checkpoint."""
    with served(tmp_path) as running:
        deployed = running.run("deployments.deploy")
        assert deployed.returncode == 0, deployed.stdout
        running.start_run(**NEVER_ENDS)
        wait_for(
            "a checkpoint",
            lambda: list(running.root.glob("artifacts/.work/consistency/*/checkpoints/step-*")),
            running.said,
            CHAIN_SECONDS,
        )
        os.kill(running.process.pid, signal.SIGKILL)
        running.process.wait()
        running.wait_for_the_end_of_all()
        assert _interrupted(running.root)
