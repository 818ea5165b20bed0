"""Processes that a test has started, known by a variable of the environment that all of them inherit."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

MARKER_VARIABLE = "UPS_TEST_MARKER"
LIMIT_SECONDS = 150.0  # far above the few seconds needed: a busy machine must not fail the test


def marked(marker: str) -> dict[int, list[str]]:
    """Numbers and command lines of those that run."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):  # it ended while we looked
                if marker.encode() in (entry / "environ").read_bytes():
                    found[int(entry.name)] = (entry / "cmdline").read_bytes().decode().split("\0")
    return found


def kill_with_descendants(process: subprocess.Popen[bytes], marker: str) -> None:
    """A failed test must not leave what it started."""
    process.kill()
    process.wait()
    for pid in marked(marker):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def wait_until(condition: Callable[[], bool], what: str, log: Callable[[], str]) -> None:
    """Fail with the log where it does not come true."""
    gives_up_at = time.monotonic() + LIMIT_SECONDS
    while not condition():
        if time.monotonic() > gives_up_at:
            pytest.fail(f"waited {LIMIT_SECONDS} s for {what}; the log:\n{log()}")
        time.sleep(0.05)
