"""The parent's side of a launch: start a stage, hand on what it prints, and never leave it behind."""

import fcntl
import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

from ups.artifacts.files import write_json
from ups.errors import StageError
from ups.pipeline.supervise.launcher import AGENT_MARGIN_SECONDS, INTERRUPTED_FILE, RANKS_DIRECTORY
from ups.pipeline.supervise.process import DETAIL, ERROR_FILE_VARIABLE
from ups.pipeline.supervise.rendezvous import RENDEZVOUS_FILE, Rendezvous

ERROR_FILE = "error.json"
LOCK_FILE = "launch.lock"

_POLL_SECONDS = 0.05
# The launcher's own limits, one after the other, with room for a busy machine.
_LAUNCHER_MARGIN_SECONDS = AGENT_MARGIN_SECONDS + 15.0


def launch(
    module: str,
    arguments: Sequence[str],
    *,
    work: Path,
    processes: int | None,
    log_file: Path,
    on_line: Callable[[str], None],
    environment: Mapping[str, str] | None = None,
    rendezvous: Rendezvous | None = None,
    grace_seconds: float = 30.0,
    deadline_seconds: float | None = None,
) -> int:
    """Run `python -m module *arguments`, under torchrun with `processes` ranks, and return its exit code.

    0: the stage ended well. 75: it was stopped by a signal or by itself, and can resume. Else it
    failed or was killed; `ups.pipeline.supervise.outcome.classify` says how, from the files in `work`. What
    those files said about an earlier launch is removed first.

    A launch waits for the processes of an earlier one in `work`: one whose parent was killed may still
    be writing its last checkpoint.

    Output (standard error included) goes to the end of `log_file`, and each line that is complete to
    `on_line`, but for tracebacks and what torchrun says. The processes write to the file and not into a
    pipe: a slow `on_line` does not hold up training, and a stage whose parent was killed can still print
    while it writes its last checkpoint.
    A progress bar that redraws its line with carriage returns counts as one line, its last state.

    However this function is left (an exception from `on_line`, KeyboardInterrupt, a cancellation that
    is raised here), the stage gets SIGTERM and `grace_seconds` to write a checkpoint, and nothing of it
    runs any longer afterwards. The same happens after `deadline_seconds`, which returns 75. If this
    process itself is killed the kernel tells the launcher, and the stage ends in the same way.

    That signal is tied to the calling thread. The launcher is started and awaited here, in one thread,
    so the thread cannot end before its launcher does; do not split this function into two.

    `environment` is added to the environment of this process and wins over it. Set `OMP_NUM_THREADS`
    there: torchrun sets it only when it is missing, and only for two ranks or more.

    With a `rendezvous`, `processes` is the number of ranks on this machine. `work` is the same directory on all
    machines. Only the first locks it and forgets what was there; the lock of another is beside its log.

    Raises:
        StageError: processes of an earlier launch in `work` do not end.
        OSError: `work` or the log file cannot be written or the launcher cannot be started.
    """

    def tell(line: str) -> None:
        if not line.startswith(DETAIL):
            on_line(line)

    work = work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    log_file.parent.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable,
        "-m",
        "ups.pipeline.supervise.launcher",
        f"--parent={os.getpid()}",
        f"--work={work}",
    ]
    if processes is not None:
        command.append(f"--processes={processes}")
    joins = rendezvous is not None and not rendezvous.hosts
    error_file = work / ERROR_FILE
    if rendezvous is not None:
        command.append(f"--rendezvous={json.dumps(asdict(rendezvous))}")
        if joins:
            error_file = work / RANKS_DIRECTORY / rendezvous.error_file()
    command += [f"--grace={grace_seconds}", "--", module, *arguments]
    wait_seconds = grace_seconds + _LAUNCHER_MARGIN_SECONDS
    deadline = math.inf if deadline_seconds is None else time.monotonic() + deadline_seconds
    kill_at = math.inf

    locked = log_file.parent if joins else work
    lock = _lock_exclusively(locked, wait_seconds)
    with log_file.open("ab") as output, log_file.open("rb") as reader:
        reader.seek(0, os.SEEK_END)
        lines = _Lines(reader)
        with lock:  # closed here once the launcher has it, which leaves the lock to the launch
            if not joins:
                _forget_earlier_end(work)
                if rendezvous is not None:
                    write_json(work / RENDEZVOUS_FILE, asdict(rendezvous))
            error_file.parent.mkdir(exist_ok=True)
            launcher = subprocess.Popen(
                command,
                stdin=lock,
                stdout=output,
                stderr=subprocess.STDOUT,
                # A session of its own: a terminal's Ctrl-C, or a scheduler's signal to the group,
                # reaches this process alone, which then ends the stage in order.
                start_new_session=True,
                env={
                    **os.environ,
                    **(environment or {}),
                    "PYTHONUNBUFFERED": "1",
                    ERROR_FILE_VARIABLE: str(error_file),
                },
            )
        try:
            ended = False
            while not ended:
                ended = launcher.poll() is not None  # asked first, so that the last lines are read below
                for line in lines.read():
                    tell(line)
                if time.monotonic() > deadline:
                    deadline, kill_at = math.inf, time.monotonic() + wait_seconds
                    launcher.terminate()
                    on_line(f"The deadline of {deadline_seconds:g} s has passed; the stage is told to end.")
                if time.monotonic() > kill_at:
                    launcher.kill()
                if not ended:
                    time.sleep(_POLL_SECONDS)
        finally:
            _end(launcher, wait_seconds)
            # A launcher that was itself killed leaves ranks that are still writing their checkpoint.
            _lock_exclusively(locked, wait_seconds).close()
            if not joins:
                (work / RENDEZVOUS_FILE).unlink(missing_ok=True)
        for line in lines.read(final=True):
            tell(line)
    return launcher.returncode


def _end(launcher: subprocess.Popen[bytes], wait_seconds: float) -> None:
    """End the launcher, in order if it does so within `wait_seconds` seconds, and reap it."""
    try:
        if launcher.poll() is None:
            launcher.terminate()
            launcher.wait(wait_seconds)
    except subprocess.TimeoutExpired:
        pass
    finally:  # also after a second Ctrl-C, by which the user says that the first took too long
        if launcher.poll() is None:
            launcher.kill()
            launcher.wait()


def _lock_exclusively(work: Path, wait_seconds: float) -> BinaryIO:
    """Lock the work directory against a second launch, once no process of an earlier one is left.

    The lock belongs to the opened file, and every process of a launch inherits that file, as its
    standard input: torchrun hands down no others. So the kernel keeps the lock until the last of them
    ends, however it ends and whoever its parent is by then. The file is empty, as input should be.

    Raises:
        StageError: processes of an earlier launch still run after `wait_seconds` seconds.
        OSError: the file cannot be opened or locked.
    """
    file = work / LOCK_FILE
    gives_up_at = time.monotonic() + wait_seconds
    with ExitStack() as unless_locked:
        file.touch()
        lock = unless_locked.enter_context(file.open("rb"))
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > gives_up_at:
                    raise StageError(
                        f"processes of an earlier launch still run after {wait_seconds:g} s",
                        where=str(work),
                        fix=f"end the processes that have {LOCK_FILE} open, then repeat the command",
                    ) from None
                time.sleep(_POLL_SECONDS)
            else:
                unless_locked.pop_all()
                return lock


def _forget_earlier_end(work: Path) -> None:
    """Remove what an earlier launch left about its end, so that the verdict is on this launch alone."""
    for name in (INTERRUPTED_FILE, ERROR_FILE, RENDEZVOUS_FILE):
        (work / name).unlink(missing_ok=True)
    if (work / RANKS_DIRECTORY).exists():
        shutil.rmtree(work / RANKS_DIRECTORY)


class _Lines:
    """The lines that a growing file has gained since the last look."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._pending = b""

    def read(self, *, final: bool = False) -> list[str]:
        """The lines that are complete, and with `final` also the rest."""
        *complete, pending = (self._pending + self._file.read()).split(b"\n")
        if final and pending:
            complete.append(pending)
            pending = b""
        # Of a progress bar only the last state can become a line; the last byte may belong to "\r\n".
        self._pending = pending[pending.rfind(b"\r", 0, -1) + 1 :]
        return [
            line.rstrip(b"\r").rpartition(b"\r")[2].decode(errors="replace").rstrip() for line in complete
        ]
