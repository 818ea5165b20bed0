"""All that can be found out about this machine: the facts for the checks of `ups.pipeline.readiness.checks`."""

import json
import platform
import resource
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any, Literal

from ups.pipeline.provenance import git
from ups.pipeline.readiness import checks
from ups.pipeline.readiness.checks import Finding
from ups.pipeline.readiness.prefect_server import (
    DEFAULT_PORT,
    ask,
    configured_address,
    configured_password,
    listens,
)

_SECONDS = 120.0
_INFINIBAND = Path("/sys/class/infiniband")


def examine(root: Path, *, device: Literal["auto", "cpu", "cuda"] = "auto") -> list[Finding]:
    """What does not depend on a configuration.

    device: that is wanted.
    """
    return [
        Finding("python", "ok", f"{platform.python_version()} ({sys.executable})"),
        *_versions(),
        *checks.of_torch(_torch_report(), device),
        *server(),
        _port(),
        checks.of_root(root),
        *limits(),
        checks.of_code(git("rev-parse", "HEAD"), changed=bool(git("status", "--porcelain"))),
    ]


def server() -> list[Finding]:
    """The Prefect server that is named, and the clocks."""
    url = configured_address()
    return checks.of_server(url, ask(url, configured_password()) if url else None, _version_of("prefect"))


def limits() -> list[Finding]:
    """Of processes that are started from here."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    locked, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    return checks.of_limits(files, locked, infiniband=_INFINIBAND.is_dir() and any(_INFINIBAND.iterdir()))


def _version_of(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _versions() -> list[Finding]:
    try:
        wanted = requires(checks.DISTRIBUTION) or []
    except PackageNotFoundError:
        fix = "install it: make setup, or pip install -e ."
        return [
            Finding("versions", "warning", "this library is not installed, so its pins are not known", fix)
        ]
    return checks.of_versions(wanted, _version_of)


def _torch_report() -> dict[str, Any]:
    """In a process of its own: this row imports no torch, and a torch that is broken breaks only that."""
    command = [sys.executable, "-m", "ups.tools.torch_report"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return {"error": f"says nothing for {_SECONDS:g} s"}
    if done.returncode != 0:
        return {"error": (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]}
    return json.loads(done.stdout)


def _port() -> Finding:
    taken = listens(DEFAULT_PORT)
    answer = ask(f"http://127.0.0.1:{DEFAULT_PORT}/api") if taken else None
    return checks.of_port(DEFAULT_PORT, taken=taken, answer=answer)
