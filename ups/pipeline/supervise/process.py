"""One Python process of a launch, be it torchrun's agent, a rank or a stage without ranks.

    python -m ups.pipeline.supervise.process DEATH_SIGNAL MODULE ARGS...

runs MODULE as `python -m MODULE ARGS...` does, with two guarantees that a stage then cannot forget:

- It dies with its parent. The chain of parents is handed down in `UPS_PARENT_PID`: each process
  checks that its parent is the one that is named there and then names itself.
- It leaves a word. An exception (also one from an import, before any decorator of the stage's own
  is at work) or a non-zero exit is written to the file named by `TORCHELASTIC_ERROR_FILE`, in the
  format of torchelastic, so that *no file* means that the process was killed.

Tracebacks, and all that the agent says, are for the log file alone: the error that the parent raises says it in short.
"""

import io
import json
import os
import runpy
import signal
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from ups.errors import EXIT_OK, Interrupted, UpsError
from ups.prctl import die_with_parent

PARENT_VARIABLE = "UPS_PARENT_PID"
ERROR_FILE_VARIABLE = "TORCHELASTIC_ERROR_FILE"
AGENT = "torch.distributed.run"
DETAIL = "  |"
"""Begins the lines of the output that are for the log file alone."""


def arguments(death_signal: signal.Signals, module: str, *module_arguments: str) -> list[str]:
    """The interpreter's arguments that run `module` in this way."""
    return ["-m", "ups.pipeline.supervise.process", death_signal.name, module, *module_arguments]


def record_failure(message: str, *, callstack: str = "", exit_codes: Mapping[str, int] | None = None) -> None:
    """Write this process's error file, in torchelastic's format; without the variable, do nothing.

    `message` is "TypeName: text". `exit_codes` maps a rank, or "agent" or "stage", to how that process
    ended; a negative one is a signal. A file that is there stays, for the first word is the cause, and
    gains only the exit codes.

    Raises:
        OSError: the file cannot be written.
        ValueError: the file that is there is not one of torchelastic's.
    """
    name = os.environ.get(ERROR_FILE_VARIABLE)
    if name is None:
        return
    file = Path(name)
    # torchelastic compares the times of its ranks' files, which are whole seconds in text.
    extra = {"py_callstack": callstack, "timestamp": str(int(time.time()))}
    record = {"message": {"message": message, "extraInfo": extra}, "rank": os.environ.get("RANK")}
    if file.exists():
        if exit_codes is None:
            return
        record = json.loads(file.read_text())
    if exit_codes is not None:
        record["exit_codes"] = dict(exit_codes)
    file.write_text(json.dumps(record))


def main() -> None:
    """Run the module named on the command line; its exit passes through, and its exceptions are recorded.

    Raises:
        SystemExit: the module ended so, or with an exception.
    """
    death_signal, module, *module_arguments = sys.argv[1:]
    die_with_parent(signal.Signals[death_signal], parent=int(os.environ[PARENT_VARIABLE]))
    os.environ[PARENT_VARIABLE] = str(os.getpid())
    details = _Details(sys.stderr)
    if module == AGENT:
        sys.stderr = details
    sys.argv = [module, *module_arguments]  # run_module puts the module's file into argv[0]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as leaving:
        if leaving.code not in {None, EXIT_OK, Interrupted.exit_code}:
            record_failure(f"SystemExit: {leaving.code}", callstack=_callstack(leaving))
        raise
    except UpsError as error:
        # Its message says what to do, and its parent shows it; where it was raised stays in the error file.
        record_failure(f"{type(error).__name__}: {error}", callstack=_callstack(error))
        sys.exit(1)  # for torchrun, which has no other; the file tells the kind
    except Exception as error:
        if not type(error).__module__.startswith("torch.distributed.elastic."):
            record_failure(f"{type(error).__name__}: {error}", callstack=_callstack(error))
            details.write(_callstack(error))
            sys.exit(1)
        # This is torchrun's agent, which found that its ranks failed, or was told to end. It has copied
        # the error file of the first rank that left one, but not how each rank ended.
        failures = getattr(error, "failures", {})
        record_failure(
            f"{type(error).__name__}: {error}",
            exit_codes={str(rank): failure.exitcode for rank, failure in failures.items()},
        )
        sys.exit(str(error))  # its summary, without a traceback through the agent


class _Details(io.TextIOBase):
    """A stream whose lines are details."""

    def __init__(self, stream: TextIO | io.TextIOBase) -> None:
        self._stream = stream
        self._begins = True

    def write(self, text: str, /) -> int:
        for line in text.splitlines(keepends=True):
            self._stream.write(f"{DETAIL} {line}" if self._begins else line)
            self._begins = line.endswith("\n")
        self._stream.flush()
        return len(text)


def _callstack(error: BaseException) -> str:
    """The traceback without the frames that belong to this file and to runpy."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename in {__file__, "<frozen runpy>"}:
        frames = frames.tb_next
    return "".join(traceback.format_exception(type(error), error, frames))


if __name__ == "__main__":
    main()
