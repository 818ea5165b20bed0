"""A stand-in for a stage, without torch: `python -m stage BEHAVIOUR WORK`."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from ups import errors

RANK = int(os.environ.get("RANK", "0"))


def checkpoint_on_sigterm(work: Path) -> None:
    """Do steps until SIGTERM; then leave what a stage leaves and exit 75."""
    stop: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: stop.append(number))
    announce(work)
    step = 0
    while not stop:
        step += 1
        time.sleep(0.02)
    print(f"rank {RANK}: checkpoint at step {step}", flush=True)  # must not fail without a reader
    if RANK == 0:
        (work / "interrupted.json").write_text(json.dumps({"step": step}))
    sys.exit(75)


def ignore_sigterm(work: Path) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # A worker of the rank's own, in a session of its own: no process group reaches it.
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    announce(work)
    time.sleep(600)


def announce(work: Path) -> None:
    """Tell the test that the signal handlers are in place."""
    (work / f"ready-{RANK}").write_text(str(os.getpid()))
    print(f"rank {RANK} is ready", flush=True)


def main() -> None:
    behaviour, work = sys.argv[1], Path(sys.argv[2])
    match behaviour:
        case "print":
            print("first")
            print("to standard error", file=sys.stderr)
            print("10 %\r20 %\r100 %")
            print("grüße")
            print("no line end", end="")
            (work / "outcome.json").write_text("{}")
        case "environment":
            print(os.environ["OMP_NUM_THREADS"], os.environ["MARKER"])
        case "exit":
            sys.exit(int(sys.argv[3]))
        case "die":
            os.kill(os.getpid(), int(sys.argv[3]))
        case "stop":
            (work / "interrupted.json").write_text('{"step": 7}')
            sys.exit(75)
        case "data-error":
            raise errors.DataError("no dataset 'tensor'", where="burgers.hdf5", fix="download it again")
        case "value-error":
            if RANK == 1 or "RANK" not in os.environ:
                raise ValueError("a wrong value")
            checkpoint_on_sigterm(work)
        case "checkpoint":
            checkpoint_on_sigterm(work)
        case "ignore":
            ignore_sigterm(work)
        case "all-reduce":
            all_reduce_for_ever(work)
        case _:
            raise ValueError(behaviour)


def all_reduce_for_ever(work: Path) -> None:
    import torch
    from torch import distributed

    distributed.init_process_group("gloo")
    announce(work)
    value = torch.ones(1)
    while True:
        if RANK == 0:
            time.sleep(0.05)  # so that rank 1 is found waiting
        distributed.all_reduce(value)


if __name__ == "__main__":
    main()
