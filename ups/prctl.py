"""Two promises that only the kernel can keep about processes (Linux only).

Both rows of the library use them: the launcher upstairs, and whatever starts processes downstairs.
"""

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def die_with_parent(death_signal: signal.Signals, parent: int) -> None:
    """Ask the kernel to send `death_signal` to this process when its parent ends.

    The signal is tied to the *thread* that started this process, not to the parent as a whole: a
    parent must start and await a process in one thread. The setting survives `exec` and is not
    inherited by children.

    `parent` is the process that is expected to be the parent. When it ended before the request
    reached the kernel, no signal would ever come; it is then sent here.

    Raises:
        OSError: the kernel refused, which on Linux means a broken sandbox.
    """
    _prctl(_PR_SET_PDEATHSIG, death_signal)
    if os.getppid() != parent:
        os.kill(os.getpid(), death_signal)


def adopt_orphans() -> None:
    """Make every orphaned descendant of this process its child, instead of a child of init.

    Raises:
        OSError: the kernel refused.
    """
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, argument: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    # prctl is variadic and reads machine words: a bare Python int would be passed as a 32-bit one.
    arguments = [ctypes.c_ulong(value) for value in (argument, 0, 0, 0)]
    if libc.prctl(option, *arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}, {argument}): {os.strerror(number)}")
