"""W&B as a mirror of metrics.jsonl: a process of its own that training cannot feel.

metrics.jsonl is the record. The mirror follows it from outside; if W&B hangs, fails or has no network, the
run goes on and ends all the same, and says once how to mirror it later.
"""

import logging
import subprocess
import sys
from pathlib import Path

from ups.config.schema import Tracking

log = logging.getLogger(__name__)

_LAST_RECORDS_SECONDS = 20


class Mirror:
    """Starts with the first record of a run; a run that trains nothing mirrors nothing."""

    def __init__(self, directory: Path, tracking: Tracking) -> None:
        self.directory = directory
        self.tracking = tracking
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start following, once."""
        if self._process is not None or self.tracking.wandb == "disabled":
            return
        command = [sys.executable, "-m", "ups.tracking", str(self.directory), "--follow"]
        with (self.directory / "logs" / "tracking.log").open("ab") as output:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=output, stderr=output, start_new_session=True
            )

    def close(self) -> None:
        """Tell the mirror that the run is over (its standard input closes) and let it finish."""
        if self._process is None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            code = self._process.wait(_LAST_RECORDS_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        if code != 0:
            log.warning(
                "W&B mirror ended with %d (see %s); the record is complete in metrics.jsonl. "
                "Mirror it again: python -m ups.tracking %s",
                code, self.directory / "logs" / "tracking.log", self.directory,
            )  # fmt: skip
        self._process = None
