"""The one small process between a flow and its ranks, there so that none of them is ever left behind.

    python -m ups.pipeline.supervise.launcher --parent PID --work DIR [--processes N [--rendezvous JSON]] [--grace SECONDS]
        -- MODULE ARGS...

    parent (flow, `ups run`)  ->  launcher  ->  torchrun's agent  ->  ranks          (--processes N)
                                            ->  stage                                (otherwise)

Why each mechanism is needed:

- *Parent-death signals on every arrow.* A `finally` does not run in a process that is killed with
  SIGKILL, and SIGKILL of torchrun, or of its parent, leaves all ranks running for ever. The kernel
  sends the signal when the *thread* that started the process ends, so the parent starts and awaits
  the launcher in one thread. The launcher gets SIGTERM and ends the rest in order; the agent gets
  SIGTERM, for it passes that on to its ranks; ranks and stages get SIGKILL, which cannot be ignored.
- *A subreaper.* torchrun makes each rank a session leader, so killing the agent's process group
  does not reach the ranks. As a subreaper the launcher becomes the parent of every orphan below it,
  also of the ranks' own workers, and can kill what is left one generation after the other.
- *One signal, once.* Stages listen to SIGTERM only: SIGINT is passed on as SIGTERM. A second signal
  would interrupt torchrun while it waits for its ranks' checkpoints, and the ranks would die with it.
- *An error file between machines.* An agent does not see that another machine's is gone. The ranks see it when they
  next communicate; before they have met, at their start, they would wait ten minutes. So a failed
  agent writes an error file into the stage's directory, and the launcher of the first machine then ends its own.
- *Files tell how it ended.* torchrun's exit code is 1 whatever happened to its ranks. The launcher
  returns 0 when its child did; 75 when it was signalled or when `interrupted.json` appeared; else 1.
  `ups.pipeline.supervise.outcome` reads the rest from the error files.
"""

import argparse
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ups.errors import EXIT_OK, Interrupted, StageError
from ups.pipeline.supervise import process
from ups.pipeline.supervise.descendants import reap
from ups.pipeline.supervise.rendezvous import Rendezvous
from ups.prctl import adopt_orphans, die_with_parent

INTERRUPTED_FILE = "interrupted.json"
RANKS_DIRECTORY = "ranks"
AGENT_MARGIN_SECONDS = 5.0  # torchrun kills its ranks after the grace; it is given this long to do so

_POLL_SECONDS = 0.05
_ASK_SECONDS = 1.0
_REAP_SECONDS = 10.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one stage to its end and return the launcher's exit code; see the module's docstring.

    Raises:
        OSError: the child cannot be started.
    """
    options, module = _parse(sys.argv[1:] if arguments is None else arguments)

    # A parent thread that blocks signals hands that down, and the launcher would be deaf.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    received: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _frame: received.append(number))
    adopt_orphans()
    die_with_parent(signal.SIGTERM, options.parent)

    interruption = options.work / INTERRUPTED_FILE
    before = _identity(interruption)
    try:
        code = _run(options, module, received) if not received else None
    finally:
        # A process in an uninterruptible call (a dead network mount, a wedged driver) outlives SIGKILL.
        if left := reap(_REAP_SECONDS, kill=True):
            sys.stderr.write(f"launcher: SIGKILL did not end these processes: {left}\n")
    if code == EXIT_OK:
        return EXIT_OK
    if received or _identity(interruption) not in {None, before}:
        return Interrupted.exit_code
    if code is not None and code < 0:
        who = "stage" if options.processes is None else "agent"
        text = f"ProcessKilled: {who} ended by {signal.Signals(-code).name}"
        process.record_failure(text, exit_codes={who: code})
    return StageError.exit_code


def _parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The launcher's options, and the stage's module with its arguments (all that follows `--`)."""
    parser = argparse.ArgumentParser(
        prog="ups.pipeline.supervise.launcher", usage="%(prog)s OPTIONS -- MODULE ARGS...", allow_abbrev=False
    )
    parser.add_argument("--parent", type=int, required=True, help="the process that starts this one")
    parser.add_argument("--work", type=Path, required=True, help="the stage's work directory")
    parser.add_argument("--processes", type=int, help="ranks under torchrun; without it, one plain process")
    parser.add_argument(
        "--rendezvous", type=lambda text: Rendezvous(**json.loads(text)), help="with ranks of other machines"
    )
    parser.add_argument("--grace", type=float, default=30.0, help="seconds from SIGTERM to SIGKILL")
    at = arguments.index("--") if "--" in arguments else len(arguments)
    options, module = parser.parse_args(arguments[:at]), list(arguments[at + 1 :])
    if not module:
        parser.error("no stage is named: write -- MODULE ARGS... at the end")
    return options, module


def _run(options: argparse.Namespace, module: Sequence[str], received: list[int]) -> int:
    """Start the child, pass on the first signal in `received`, and return how the child ended."""
    wait_seconds = options.grace
    rendezvous, ranks = options.rendezvous, options.work / RANKS_DIRECTORY
    arguments = process.arguments(signal.SIGKILL, *module)
    environment = {**os.environ, process.PARENT_VARIABLE: str(os.getpid())}
    if options.processes is not None:
        grace = max(1, math.ceil(options.grace))  # whole seconds: torchrun takes no others
        wait_seconds = grace + AGENT_MARGIN_SECONDS
        arguments = process.arguments(
            signal.SIGTERM,
            process.AGENT,
            *(["--standalone"] if rendezvous is None else rendezvous.agent_options()),
            f"--nproc-per-node={options.processes}",
            "--max-restarts=0",
            # Where each rank's error file lies; the default is a new directory in /tmp for each launch.
            f"--log-dir={ranks}",
            *arguments,
        )
        # No option: torch 2.11's torchrun has none, and waits 30 s.
        environment["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] = str(grace)
    # Standard input is handed down: it is the lock of `ups.pipeline.supervise.launch`.
    child = subprocess.Popen([sys.executable, *arguments], env=environment)
    killed_at, asks_at, lost = math.inf, 0.0, False
    while (code := child.poll()) is None:
        if rendezvous is not None and time.monotonic() > asks_at:  # not too often: of a shared file system
            asks_at = time.monotonic() + _ASK_SECONDS
            lost = lost or rendezvous.has_lost_another(ranks)
        if (received or lost) and killed_at == math.inf:
            child.send_signal(signal.SIGTERM)
            killed_at = time.monotonic() + wait_seconds
        if time.monotonic() > killed_at:
            child.kill()
        time.sleep(_POLL_SECONDS)
    return code


def _identity(file: Path) -> tuple[int, int] | None:
    """What tells one writing of a file from another, or None without a file."""
    try:
        status = file.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns


if __name__ == "__main__":
    sys.exit(main())
