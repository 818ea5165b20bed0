"""The verdict on how a launch ended, from the files that its processes left."""

import json
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ups import errors
from ups.artifacts.files import OUTCOME_FILE
from ups.config.schema import STAGES
from ups.errors import (
    EXIT_OK,
    DiskFullError,
    Interrupted,
    OutOfMemoryError,
    PreflightError,
    ProcessKilled,
    StageError,
    StorageError,
    UpsError,
)
from ups.pipeline.supervise import rendezvous
from ups.pipeline.supervise.launch import ERROR_FILE
from ups.pipeline.supervise.launcher import INTERRUPTED_FILE, RANKS_DIRECTORY

# Exceptions of other libraries have no common classes for these; their messages are stable.
_OUT_OF_MEMORY = (
    "MemoryError:",
    "OutOfMemoryError:",
    "out of memory",
    "can't allocate memory",
    "Cannot allocate memory",
    "ALLOC_FAILED",
)
_FULL = ("No space left on device", "Disk quota exceeded")
_PEER_ERRORS = {"RuntimeError", "DistError", "DistBackendError", "DistNetworkError", "DistStoreError"}
_PEER_LOST = (
    "Connection closed by peer",
    "Connection reset",
    "Connection was likely closed",
    "Connection refused",
    "Broken pipe",
    "remote process exited",
)
_MEETING_OVER = {"RendezvousConnectionError", "RendezvousClosedError"}  # another machine's agent has ended it
_CODES_OF_EXITS: Mapping[str, type[UpsError]] = {
    str(kind.exit_code): kind
    for kind in (errors.ConfigurationError, errors.PreflightError, StorageError, errors.IntegrityError)
}
_CRASHES = {-signal.SIGSEGV, -signal.SIGBUS, -signal.SIGFPE, -signal.SIGILL}


@dataclass(frozen=True)
class _Failure:
    """What one process wrote about its own end."""

    kind: str
    """The name of the exception's type."""
    text: str
    callstack: str
    rank: str | None
    """None for torchrun's agent and for a stage without ranks."""
    written: int
    """The file's time in nanoseconds; torchelastic's own timestamp has whole seconds."""


def classify(returncode: int, work: Path, *, stage: str | None = None) -> None:
    """Return when the launch in `work` ended well, otherwise raise the error that says how it ended.

    `returncode` is the one of `ups.pipeline.supervise.launch.launch`. It alone tells little: torchrun returns 1
    for everything. The first exception that any process recorded is the cause, except that

    - an exception that was recorded after `interrupted.json` is a consequence of the interruption;
    - a lost peer ("Connection closed by peer") is a consequence of the peer's end, whose own record,
      if it could still write one, is the cause.

    stage: that was launched, whose keys are named where memory was exhausted; None: another process.

    Raises:
        UpsError: the class of that name in `ups.errors`, when a process raised one.
        Interrupted: `interrupted.json` was written, or a signal came before there was a checkpoint.
        OutOfMemoryError: host or device memory was exhausted.
        StorageError: the disk is full or fails.
        PreflightError: not all machines came.
        StageError: any other exception, with its rank and traceback; a crash in native code.
        ProcessKilled: a process ended without a word, so it was killed from outside.
    """
    interruption = work / INTERRUPTED_FILE
    if returncode == EXIT_OK:
        if (work / OUTCOME_FILE).exists():
            return
        if not interruption.exists():
            raise StageError(f"the stage ended without writing {OUTCOME_FILE}", where=str(work))
        raise Interrupted(_interruption_text(interruption))

    failures, exit_codes = _read_failures(work)
    causes = [failure for failure in failures if not _is_consequence(failure)]
    if causes and not (interruption.exists() and interruption.stat().st_mtime_ns < causes[0].written):
        raise _error_for(causes[0], stage, work)
    if interruption.exists():
        raise Interrupted(_interruption_text(interruption))
    if returncode == Interrupted.exit_code:
        raise Interrupted(
            "stopped by a signal before this launch wrote a checkpoint; "
            "the same command resumes from the last one"
        )
    if returncode < 0:
        exit_codes = {"launcher": returncode, **exit_codes}
    raise _error_without_word(exit_codes, {failure.rank for failure in failures}, stage)


def _interruption_text(file: Path) -> str:
    step = _read_json(file).get("step", "an unknown step")
    return f"stopped after a checkpoint at step {step}; the same command resumes from there"


def _read_failures(work: Path) -> tuple[list[_Failure], dict[str, int]]:
    """What the processes recorded, the earliest first, and the exit codes that are known."""
    ranks = work / RANKS_DIRECTORY
    # The first is this machine's, or that of the machine that is joined; the others come from those that join.
    agents = {file: _read_json(file) for file in (work / ERROR_FILE, *ranks.glob("*.json")) if file.exists()}
    # The agent's file is a copy of one rank's. torchrun chooses by whole seconds, so it may have chosen
    # the rank that lost its peer; the ranks' own files are complete and tell which rank it was.
    files = {file: _read_json(file) for file in ranks.glob(f"*/*/*/{ERROR_FILE}")}
    # The directory's name is the rank's number on its machine.
    failures = [
        _failure(record, file, record.get("rank") or file.parent.name) for file, record in files.items()
    ]
    if not failures:
        failures = [_failure(record, file, None) for file, record in agents.items()]
    exit_codes = {
        who: code for record in agents.values() for who, code in record.get("exit_codes", {}).items()
    }
    return sorted(failures, key=lambda failure: failure.written), exit_codes


def _failure(record: Mapping[str, Any], file: Path, rank: str | None) -> _Failure:
    message: Any = record.get("message", "")
    if not isinstance(message, Mapping):  # torchelastic has this second form, a bare text
        message = {"message": message}
    kind, _, text = str(message.get("message", "")).partition(": ")
    callstack = str(message.get("extraInfo", {}).get("py_callstack", ""))
    return _Failure(kind, text, callstack, rank, file.stat().st_mtime_ns)


def _read_json(file: Path) -> dict[str, Any]:
    """The object in `file`; a process that was killed while it wrote leaves part of one: then {}."""
    try:
        content = json.loads(file.read_text())
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _is_consequence(failure: _Failure) -> bool:
    """Whether this is how a process saw the end of another one."""
    if failure.kind in {"", "SignalException", "ChildFailedError", ProcessKilled.__name__, *_MEETING_OVER}:
        return True
    return failure.kind in _PEER_ERRORS and any(phrase in failure.text for phrase in _PEER_LOST)


def _error_for(failure: _Failure, stage: str | None, work: Path) -> UpsError:
    """The error of this library that an exception in a stage's process stands for."""
    whole = f"{failure.kind}: {failure.text}"
    kind = getattr(errors, failure.kind, None)
    # torch has an OutOfMemoryError too, which knows no fix.
    if isinstance(kind, type) and issubclass(kind, UpsError) and kind is not OutOfMemoryError:
        return kind(failure.text)  # it was written for the user; where and how to fix it are in the text
    if failure.kind == "RendezvousTimeoutError":
        return PreflightError(
            f"not all machines came within {rendezvous.WAIT_SECONDS} s",
            where="execution.nodes",
            fix="run `ups join` with the same configuration, code and root on each of the other machines; they must reach "
            f"{rendezvous.ENDPOINT_VARIABLE} of the first, and no clock may differ by more than a few seconds",
        )
    if any(phrase in whole for phrase in _OUT_OF_MEMORY):
        return OutOfMemoryError(whole, where=_place(failure), fix=_memory_fix(stage))
    if any(phrase in whole for phrase in _FULL):
        fix = "free space (`ups cache gc --dry-run` shows what may go); the same command resumes"
        return DiskFullError(whole, where=f"{_place(failure)}, {work}", fix=fix)
    if "Input/output error" in whole:
        return StorageError(whole, where=_place(failure), fix="repair the disk; the same command resumes")
    if failure.kind == "SystemExit" and failure.text in _CODES_OF_EXITS:
        return _CODES_OF_EXITS[failure.text](
            f"ended with exit code {failure.text}; the log says why", where=_place(failure)
        )
    return StageError(f"{whole}\n{failure.callstack}".rstrip(), where=_place(failure))


def _place(failure: _Failure) -> str:
    return "stage" if failure.rank is None else f"rank {failure.rank}"


def _memory_fix(stage: str | None) -> str:
    """What to change for less memory."""
    known = None if stage is None else STAGES[stage]
    if known is None or known.section is None or "batch_size" not in known.section[1].model_fields:
        return "take a machine with more memory, or less of the data at once"
    section = known.section[0]
    if not known.trains:
        return f"lower {section}.batch_size"
    return (
        f"raise {section}.accumulation, so that a batch is computed in more parts, or set execution.activation_checkpointing: 1; "
        f"both learn the same. Or lower {section}.batch_size, which does not"
    )


def _error_without_word(
    exit_codes: Mapping[str, int], spoken: set[str | None], stage: str | None
) -> UpsError:
    """The error for processes that ended without an exception."""
    silent = {who: code for who, code in exit_codes.items() if who not in spoken}
    crashed = {who: code for who, code in silent.items() if code in _CRASHES or code > 0}
    killed = {who: code for who, code in silent.items() if code == -signal.SIGKILL} or {
        who: code for who, code in silent.items() if code == -signal.SIGTERM
    }
    if crashed or (silent and not killed):  # torchrun itself ends the other ranks by SIGTERM
        return StageError(f"ended without an exception: {_endings(crashed or silent)}; the log may say where")
    reason = _endings(killed) if killed else "it left no word"
    return ProcessKilled(
        f"a process was killed from outside ({reason}); the same command resumes it",
        fix=f"if it was the kernel for lack of memory (see its log), first {_memory_fix(stage)}",
    )


def _endings(exit_codes: Mapping[str, int]) -> str:
    """For example "rank 0 by SIGKILL, rank 1 with exit code 3"."""
    return ", ".join(
        f"{f'rank {who}' if who.isdecimal() else who} "
        + (f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}")
        for who, code in sorted(exit_codes.items())
    )
