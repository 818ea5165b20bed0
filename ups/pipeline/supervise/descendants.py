"""The processes below this one, read from /proc (Linux only)."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

_POLL_SECONDS = 0.01


def children(parent: int) -> Iterator[int]:
    """The numbers of the processes that a process has started or adopted."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        with suppress(FileNotFoundError, ProcessLookupError):  # it ended while we looked
            # "pid (name) state ppid ...", where the name may hold spaces and parentheses
            fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
            if int(fields[1]) == parent:
                yield int(entry.name)


def reap(seconds: float, *, kill: bool, spared: Callable[[int], bool] = lambda pid: False) -> list[int]:
    """Wait until no process is left below this one, a subreaper, or kill them; returns what is left after `seconds`.

    Only children are signalled, for their process numbers cannot be given to others before they are
    reaped here. Grandchildren become children when their parents die.

    spared: whether a child is awaited, and not killed.
    """
    gives_up_at = time.monotonic() + seconds
    while time.monotonic() < gives_up_at:
        for pid in children(os.getpid()) if kill else ():
            if not spared(pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
        except ChildProcessError:  # no child is left, and so no descendant
            return []
        time.sleep(_POLL_SECONDS)
    return list(children(os.getpid()))
