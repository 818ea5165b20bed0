"""A PostgreSQL server of its own, from the distribution's packages."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PASSWORD = "database-password-47f3"


@contextmanager
def postgres() -> Iterator[str]:
    """The URL of an empty database, with its password; skips where PostgreSQL is not installed."""
    found = shutil.which("initdb")
    folders = [Path(found).parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not folders:
        pytest.skip("PostgreSQL is not installed")
    # It refuses to run as root, and needs a directory that its user can reach: those of pytest are closed.
    user = "postgres" if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory() as name, socket.socket() as free:
        directory = Path(name)
        (directory / "password").write_text(PASSWORD)
        if user:
            shutil.chown(directory, user)
            shutil.chown(directory / "password", user)
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()

        def run(tool: str, *arguments: str | Path) -> None:
            # It writes into the log what the test does not read; a server would hold a pipe open.
            with (directory / "log").open("ab") as log:
                subprocess.run(
                    [folders[-1] / tool, "--pgdata", directory / "data", *arguments],
                    check=True, user=user, cwd=directory, stdout=log, stderr=log,
                )  # fmt: skip

        run("initdb", "--username", "prefect", "--auth", "scram-sha-256", "--pwfile", directory / "password")
        run("pg_ctl", "start", "--wait", "--options", f"-p {port} -k {directory} -c fsync=off")
        try:
            yield f"postgresql+asyncpg://prefect:{PASSWORD}@127.0.0.1:{port}/postgres"
        finally:
            run("pg_ctl", "stop", "--wait", "--mode", "fast")
