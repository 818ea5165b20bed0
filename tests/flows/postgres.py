"""A PostgreSQL server of the distribution's package, in a directory of its own; it can be killed and started again."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from orchestra import wait_for

_NAMED = os.environ.get("PATH", "").split(os.pathsep)
_PACKAGED = sorted(
    map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True
)  # Debian keeps it off the PATH


PASSWORD = "database-password-47f3"


class Postgres:
    """Its databases outlive its processes, until `close`."""

    def __init__(self) -> None:
        found = shutil.which("initdb", path=os.pathsep.join(_NAMED + _PACKAGED))
        if found is None:
            pytest.skip("PostgreSQL is not installed (Debian: postgresql)")
        self._programs = Path(found).resolve().parent
        # Not below pytest's directory, which only its owner may enter: PostgreSQL refuses to run as root.
        self.directory = Path(tempfile.mkdtemp(prefix="ups-postgres-"))
        self._identity: dict[str, Any] = {}
        if os.geteuid() == 0:
            self._identity = {"user": "postgres", "group": "postgres"}
            shutil.chown(self.directory, **self._identity)
        with closing(socket.create_server(("127.0.0.1", 0))) as free:
            self._port = free.getsockname()[1]
        self._log = self.directory / "log"
        self.url = f"postgresql+asyncpg://prefect:{PASSWORD}@127.0.0.1:{self._port}/postgres"
        """For Prefect's PREFECT_SERVER_DATABASE_CONNECTION_URL."""
        password = self.directory / "password"
        password.write_text(PASSWORD)
        if self._identity:
            shutil.chown(password, **self._identity)
        login = ("--auth=scram-sha-256", "--username=prefect", f"--pwfile={password}")
        self._run("initdb", *login, "--encoding=UTF8", "--no-sync").check_returncode()
        self.start()

    def start(self) -> None:
        def starts() -> bool:
            # Killed, it leaves memory to its last children, and cannot start before they have ended too.
            return (
                self._run("pg_ctl", "start", "-w", "-l", str(self._log), "-o", self._options).returncode == 0
            )

        wait_for("PostgreSQL", starts, self._said)

    def kill(self) -> None:
        """By SIGKILL, as the kernel does for lack of memory; its children end by themselves."""
        os.kill(int((self.directory / "data" / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)

    def close(self) -> None:
        self._run("pg_ctl", "stop", "-m", "immediate", "-w")
        shutil.rmtree(self.directory)

    @property
    def _options(self) -> str:
        return f"-c listen_addresses=127.0.0.1 -p {self._port} -k {self.directory} -F"

    def _run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        command = [self._programs / program, "-D", self.directory / "data", *arguments]
        with self._log.open("ab") as log:
            self._log.chmod(0o666)
            return subprocess.run(
                command, cwd=self.directory, stdout=log, stderr=log, check=False, **self._identity
            )

    def _said(self) -> str:
        return self._log.read_text()
