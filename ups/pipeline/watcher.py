"""A process that learns how this one ends, also when it is killed: the kernel closes the pipe that it reads."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import BinaryIO


class Watcher:
    """`python -m module *arguments` in a session of its own, so that what ends ours does not end it.

    Its standard input is the pipe: what it is told before the end of the file are words of this process, and a file
    that ends without the last of them says that this process was killed.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(self, module: str, arguments: Sequence[str], output: BinaryIO | int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip

    def tell(self, word: str) -> None:
        """Send a line; a process that has ended does not hear it, and its exit code says so."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(f"{word}\n".encode())
            self._process.stdin.flush()

    def end(self, seconds: float | None = None) -> int | None:
        """Close the pipe and wait for the exit code.

        seconds: after which the process is killed, with all that it started; None is returned then.
        """
        assert self._process.stdin is not None
        try:
            with suppress(BrokenPipeError):
                self._process.stdin.close()
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        finally:
            if seconds is not None and self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
