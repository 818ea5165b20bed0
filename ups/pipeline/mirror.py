"""W&B as a mirror of metrics.jsonl: a process of its own that training cannot feel.

metrics.jsonl is the record. The mirror follows it from outside; if W&B hangs, fails or has no network, the
run goes on and ends all the same, and says once how to mirror it later.
"""

import logging
from pathlib import Path

from ups.config.schema import Tracking
from ups.pipeline.watcher import Watcher

log = logging.getLogger(__name__)

_LAST_RECORDS_SECONDS = 20


class Mirror:
    """A process that follows a run; it outlives neither the run nor a run that is killed."""

    def __init__(self, directory: Path, tracking: Tracking) -> None:
        self.directory = directory
        self.tracking = tracking
        self.log_file = directory / "logs" / "tracking.log"
        self._watcher: Watcher | None = None
        self._failed = False

    def start(self) -> None:
        """Start following, once."""
        if self._watcher is not None or self._failed or self.tracking.wandb == "disabled":
            return
        # By itself if we are killed; else we have ended it before, and said so.
        arguments = [str(self.directory), "--follow", str(2 * _LAST_RECORDS_SECONDS)]
        try:
            with self.log_file.open("ab") as output:
                self._watcher = Watcher("ups.tracking", arguments, output)
        except OSError as error:
            self._failed = True
            self._warn(f"could not be started ({error})")

    def close(self, *, finished: bool) -> None:
        """Tell the mirror that the run is over, and let it finish: its standard input closes, after a word if the run
        got to its end. It is killed if it does not end, with the processes that W&B started."""
        if self._watcher is None:
            return
        watcher, self._watcher = self._watcher, None
        if finished:
            watcher.tell("finished")
        code = watcher.end(_LAST_RECORDS_SECONDS)
        if code is None:
            self._warn(f"did not end within {_LAST_RECORDS_SECONDS} s")
        elif code != 0:
            self._warn(f"ended with exit code {code}")

    def _warn(self, what: str) -> None:
        log.warning(
            "warning: the W&B mirror %s (see %s). The record is complete in metrics.jsonl; "
            "mirror it again: python -m ups.tracking %s",
            what, self.log_file, self.directory,
        )  # fmt: skip
