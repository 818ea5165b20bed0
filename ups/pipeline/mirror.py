"""W&B as a mirror of metrics.jsonl: a process of its own that training cannot feel.

metrics.jsonl is the record. The mirror follows it from outside; if W&B hangs, fails or has no network, the
run goes on and ends all the same, and says once how to send it later.
"""

import logging
import shutil
import subprocess
import sys
from pathlib import Path

from ups.config.schema import Tracking
from ups.errors import PreflightError, StorageError
from ups.pipeline.watcher import Watcher

log = logging.getLogger(__name__)

_LAST_RECORDS_SECONDS = 20
MIRRORED = "wandb"
"""In the directory of a run that has or had a mirror: what W&B writes."""
_SENT = f"{MIRRORED}/*/*.wandb.synced"
"""Marks of `wandb sync` and of a mirror that was online to its end."""


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
            (self.directory / MIRRORED).mkdir(exist_ok=True)
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
            "`ups sync %s` sends it.",
            what, self.log_file, self.directory,
        )  # fmt: skip


def is_sent(run: Path) -> bool:
    """Whether W&B has all that the record of a run holds."""
    recorded = [run / name for name in ("metrics.jsonl", "metrics.json") if (run / name).exists()]
    sent = max((mark.stat().st_mtime_ns for mark in run.glob(_SENT)), default=0)
    return all(path.stat().st_mtime_ns < sent for path in recorded)


def send(run: Path) -> None:
    """Send the record of a run to W&B, whole: however its mirror ended, and without rows that are there twice.

    Its file for W&B is written anew from metrics.jsonl, and `wandb sync` puts it into the place of what W&B has
    under the same identity.

    Raises:
        PreflightError: W&B is not installed, or nobody has logged in.
        StorageError: W&B does not answer, or refuses it.
    """
    for earlier in run.glob(f"{MIRRORED}/offline-run-*"):
        shutil.rmtree(earlier)
    _run_wandb(run, ["-m", "ups.tracking", str(run), "--offline"])
    [written] = run.glob(f"{MIRRORED}/offline-run-*")
    _run_wandb(run, ["-m", "wandb", "sync", "--yes", str(written)])
    if not is_sent(run):
        raise StorageError(
            "W&B did not say that it has all of it", where=str(run), fix="run the same command again"
        )


def _run_wandb(run: Path, arguments: list[str]) -> None:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return
    said = (done.stderr or done.stdout).strip()
    last = said.splitlines()[-1] if said else f"exit code {done.returncode}"
    if "No module named 'wandb'" in said:
        raise PreflightError("is not installed", where="W&B", fix="install it: pip install wandb")
    if "API key" in said or "wandb login" in said:
        raise PreflightError(
            "nobody has logged in",
            where="W&B",
            fix="set WANDB_API_KEY, or call `wandb login`; then repeat the command",
        )
    raise StorageError(
        f"could not be sent: {last}",
        where=str(run),
        fix="repeat the command when W&B answers; nothing is lost",
    )
