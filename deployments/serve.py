"""Prefect server, work pool, limit of the GPU and one worker, all together: `python -m deployments.serve`, also `make serve`.

    serve  ->  server
           ->  worker  ->  flow runs  ->  stages
           ->  the reports, for links in the UI

- *The worker ends before the server*: a flow that is stopped reports its last state, and would wait for minutes for a
  server that is gone. So each has a session of its own, which the terminal's Ctrl-C does not reach.
- *They die with this process*, also where it is killed (`ups.pipeline.supervise.process`).
- *If one ends, all end*: a supervisor such as systemd then starts all again.

Address and database are Prefect's settings PREFECT_SERVER_API_HOST, PREFECT_SERVER_API_PORT and
PREFECT_SERVER_DATABASE_CONNECTION_URL. Rejected: an option for the database; its password would be in the list of processes.
"""

import argparse
import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from prefect.settings import PREFECT_API_URL, PREFECT_SERVER_API_HOST, PREFECT_SERVER_API_PORT
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine

from deployments import worker
from deployments.server import POOL, answers, connected, own_address, prepare
from deployments.worker import ignore_signals, obey_signals, start, stop
from tasks.report_links import REPORTS_URL
from ups.errors import EXIT_OK, PreflightError, StageError, UpsError

DATABASE = "PREFECT_SERVER_DATABASE_CONNECTION_URL"
START_SECONDS = 300.0
"""A first start makes the database's tables; two cores with thirty processes needed more than two minutes."""
GRACE_SECONDS = 5 * worker.GRACE_SECONDS  # it takes up to four of these, and longer where hooks do
DATABASE_SECONDS = 10.0
_POLL_SECONDS = 0.2


def main() -> int:
    """Serve until Ctrl-C or SIGTERM; returns the exit code."""
    argparse.ArgumentParser(
        prog="python -m deployments.serve",
        description="Start Prefect server and worker, and stop both at Ctrl-C or SIGTERM. They listen and store where "
        f"PREFECT_SERVER_API_HOST, PREFECT_SERVER_API_PORT and {DATABASE} say.",
        epilog="Exit codes are those of `ups --help`.",
    ).parse_args()
    obey_signals()
    try:
        with suppress(KeyboardInterrupt):
            serve()
    except UpsError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return EXIT_OK


def serve() -> None:
    """Start all parts and watch them; it returns never.

    Raises:
        PreflightError: the address is taken, the database does not answer, or a part does not start.
        StageError: a part has ended.
        KeyboardInterrupt: the signal to stop.
    """
    address = own_address()
    url = f"{address}/api"
    _require_address(url)
    _require_database()
    parts: dict[str, subprocess.Popen[bytes]] = {}
    try:
        parts["server"] = start("prefect", "server", "start")
        # A worker hands its environment to all that it runs, and none of it needs the database's password.
        os.environ.pop(DATABASE, None)
        os.environ["PREFECT_API_URL"] = url
        _wait("server", parts, lambda: answers(url))
        with connected(url) as client:
            for part in prepare(client):
                print(f"created {part}", flush=True)
            if reports := _serve_reports():
                parts["reports"] = reports
            name = f"{socket.gethostname()}-{os.getpid()}"
            parts["worker"] = start("deployments.worker", "--name", name)
            _wait(
                "worker",
                parts,
                lambda: name in {found.name for found in client.read_workers_for_work_pool(POOL)},
            )
        print(_NEXT.format(address=address, url=url), flush=True)
        while True:
            _require_running(parts)
            time.sleep(_POLL_SECONDS)
    finally:
        ignore_signals()
        for part in reversed(parts.values()):
            stop(part, GRACE_SECONDS)


def _serve_reports() -> subprocess.Popen[bytes] | None:
    """Let the links in the UI find the reports of this machine.

    None where somebody else does, where other machines see the UI too, for a link to this one's 127.0.0.1 would lead them astray,
    or where the port is taken.
    """
    if os.environ.get(REPORTS_URL) or PREFECT_SERVER_API_HOST.value() not in {"127.0.0.1", "localhost"}:
        return None
    port = PREFECT_SERVER_API_PORT.value() + 1
    try:
        with socket.create_server(("127.0.0.1", port)):
            pass
    except OSError as error:
        print(f"no links to reports in the UI: 127.0.0.1:{port}: {error.strerror}", flush=True)
        return None
    os.environ[REPORTS_URL] = f"http://127.0.0.1:{port}"
    return start("deployments.reports", "--port", str(port))


_NEXT = """
Server, work pool, GPU limit and worker are up. Ctrl-C stops all of them; stages write a checkpoint first.
  UI                      {address}
  in another shell        export PREFECT_API_URL={url}
  register deployments    make deploy
  start a run             prefect deployment run burgers-upt/demo --watch
"""


def _require_address(url: str) -> None:
    """Raises PreflightError: the port is taken, or the environment names another server."""
    if answers(url):
        raise PreflightError(
            "a Prefect server answers there already",
            where=url,
            fix=f"use it (PREFECT_API_URL={url} make deploy; a further worker: python -m deployments.worker), or stop it",
        )
    named = PREFECT_API_URL.value()
    if named not in {None, url}:
        raise PreflightError(
            f"names another server than the one to start, {url}; other shells would not find it",
            where=f"PREFECT_API_URL={named}",
            fix="unset it, or start a worker of that server alone: python -m deployments.worker",
        )
    host, port = PREFECT_SERVER_API_HOST.value(), PREFECT_SERVER_API_PORT.value()
    try:
        with socket.create_server((host, port)):
            pass
    except OSError as error:
        raise PreflightError(
            f"cannot be listened on: {error.strerror}",
            where=f"{host}:{port}",
            fix="end what listens there, or take another: make serve PREFECT_SERVER_API_PORT=4300",
        ) from error


def _require_database() -> None:
    """Raises PreflightError: the database that is named does not answer. Prefect would say so in a page of traceback."""
    if not (text := os.environ.get(DATABASE)):
        return
    shown = "(not shown)"
    try:
        url = make_url(text)
        shown = url.render_as_string()  # without its password
        asyncio.run(_connect(url))
    except (SQLAlchemyError, ImportError, OSError) as error:
        raise PreflightError(
            f"does not answer: {error}",
            where=f"{DATABASE}={shown}",
            fix="start it, or correct the URL: postgresql+asyncpg://USER:PASSWORD@HOST:5432/NAME",
        ) from error


async def _connect(url: URL) -> None:
    engine = create_async_engine(url)
    try:
        async with asyncio.timeout(DATABASE_SECONDS), engine.connect():
            pass
    finally:
        await engine.dispose()


def _wait(what: str, parts: Mapping[str, subprocess.Popen[bytes]], is_up: Callable[[], bool]) -> None:
    gives_up_at = time.monotonic() + START_SECONDS
    while not is_up():
        _require_running(parts)
        if time.monotonic() > gives_up_at:
            raise PreflightError(
                f"is not up after {START_SECONDS:g} s", where=f"Prefect {what}", fix="its output is above"
            )
        time.sleep(_POLL_SECONDS)


def _require_running(parts: Mapping[str, subprocess.Popen[bytes]]) -> None:
    for name, part in parts.items():
        if (code := part.poll()) is not None:
            raise StageError(
                f"ended with exit code {code}", where=f"Prefect {name}", fix="its output is above"
            )


if __name__ == "__main__":
    sys.exit(main())
