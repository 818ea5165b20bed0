"""One process worker of the pool, which stops in good order: `python -m deployments.worker [OPTIONS OF prefect worker start]`.

Prefect's worker kills its flow runs when it is stopped; they would stay Running on the server until a heartbeat is missed. Here
SIGTERM or Ctrl-C first reaches the flow runs: each stage writes a checkpoint, each run reports that it ended, and then the worker
ends. Whatever is left of runs that were killed is awaited too, and so are finish hooks, so that a supervisor or container may
end everything afterwards.
"""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from deployments.server import POOL, answers, no_answer, server_url
from ups.errors import EXIT_OK, PreflightError, StageError
from ups.pipeline.supervise import process
from ups.pipeline.supervise.descendants import children, reap
from ups.prctl import adopt_orphans

CHECKOUT = Path(__file__).parents[1]
GRACE_SECONDS = 45.0
"""A stage has 30 s for its checkpoint, see `ups.pipeline.supervise.launcher`; its flow reports after it."""
_POLL_SECONDS = 0.2


def start(*command: str) -> subprocess.Popen[bytes]:
    """`python -m command`, which dies with this process, and which a terminal's Ctrl-C does not reach."""
    return subprocess.Popen(
        [sys.executable, *process.arguments(signal.SIGTERM, *command)],
        cwd=CHECKOUT,  # Prefect's settings are in pyproject.toml
        env=os.environ | {process.PARENT_VARIABLE: str(os.getpid()), "DO_NOT_TRACK": "1"},
        start_new_session=True,
    )


def stop(part: subprocess.Popen[bytes], seconds: float) -> None:
    """SIGTERM, and SIGKILL after so many seconds."""
    part.terminate()
    try:
        part.wait(seconds)
    except subprocess.TimeoutExpired:
        part.kill()
        part.wait()


def obey_signals() -> None:
    """Ctrl-C and SIGTERM raise KeyboardInterrupt, also where a shell has started this in the background, ignoring SIGINT."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)


def ignore_signals() -> None:
    """A second one would interrupt what the first has asked for."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def main() -> int:
    """Work until Ctrl-C or SIGTERM; returns the exit code."""
    url = server_url()
    if not answers(url):
        sys.stderr.write(f"{no_answer(url)}\n")
        return PreflightError.exit_code
    os.environ["PREFECT_API_URL"] = url
    obey_signals()
    adopt_orphans()
    worker = start("prefect", "worker", "start", "--pool", POOL, "--type", "process", *sys.argv[1:])
    try:
        code = worker.wait()
        sys.stderr.write(f"Prefect worker ended with exit code {code}\n")
        return StageError.exit_code
    except KeyboardInterrupt:
        ignore_signals()
        _end_runs(worker.pid)
        stop(worker, GRACE_SECONDS)
        return EXIT_OK
    finally:
        ignore_signals()
        _end_the_rest()


def _end_runs(worker: int) -> None:
    """One SIGTERM to each flow run of the worker, also to those that it still starts."""
    told: set[int] = set()
    gives_up_at = time.monotonic() + GRACE_SECONDS
    while (runs := set(children(worker))) and time.monotonic() < gives_up_at:
        for run in runs - told:
            with suppress(ProcessLookupError):  # it has ended by itself
                os.kill(run, signal.SIGTERM)
        told |= runs
        time.sleep(_POLL_SECONDS)


def _end_the_rest() -> None:
    """Until nothing is left of the runs; what takes too long is killed, but for finish hooks: they have a limit of their own."""
    if reap(GRACE_SECONDS, kill=False):
        while any(_runs_hooks(pid) for pid in reap(GRACE_SECONDS, kill=True, spared=_runs_hooks)):
            pass


def _runs_hooks(pid: int) -> bool:
    try:
        return b"\0ups.pipeline.run_hooks\0" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):  # it has ended
        return False


if __name__ == "__main__":
    sys.exit(main())
