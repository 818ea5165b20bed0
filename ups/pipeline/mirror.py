"""W&B as a mirror of metrics.jsonl: a process of its own that training cannot feel.

metrics.jsonl is the record. The mirror follows it from outside; if W&B hangs, fails or has no network, the
run goes on and ends all the same, and says once how to mirror it later.
"""

import logging
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from ups.config.schema import Tracking

log = logging.getLogger(__name__)

_LAST_RECORDS_SECONDS = 20


class Mirror:
    """A process that follows a run; it outlives neither the run nor a run that is killed."""

    def __init__(self, directory: Path, tracking: Tracking) -> None:
        self.directory = directory
        self.tracking = tracking
        self.log_file = directory / "logs" / "tracking.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._failed = False

    def start(self) -> None:
        """Start following, once."""
        if self._process is not None or self._failed or self.tracking.wandb == "disabled":
            return
        command = [sys.executable, "-m", "ups.tracking", str(self.directory)]
        # By itself if we are killed; else we have ended it before, and said so.
        command += ["--follow", str(2 * _LAST_RECORDS_SECONDS)]
        try:
            with self.log_file.open("ab") as output:
                self._process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=output, stderr=output, start_new_session=True
                )
        except OSError as error:
            self._failed = True
            self._warn(f"could not be started ({error})")

    def close(self, *, finished: bool) -> None:
        """Tell the mirror that the run is over, and let it finish: its standard input closes, after a word if the run
        got to its end."""
        if self._process is None:
            return
        assert self._process.stdin is not None
        try:
            with suppress(BrokenPipeError):  # a mirror that has failed is told of below
                if finished:
                    self._process.stdin.write(b"finished\n")
                self._process.stdin.close()
            code = self._process.wait(_LAST_RECORDS_SECONDS)
            if code != 0:
                self._warn(f"ended with exit code {code}")
        except subprocess.TimeoutExpired:
            self._warn(f"did not end within {_LAST_RECORDS_SECONDS} s")
        finally:
            if self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGKILL)  # W&B starts processes of its own
                self._process.wait()
            self._process = None

    def _warn(self, what: str) -> None:
        log.warning(
            "warning: the W&B mirror %s (see %s). The record is complete in metrics.jsonl; "
            "mirror it again: python -m ups.tracking %s",
            what, self.log_file, self.directory,
        )  # fmt: skip
