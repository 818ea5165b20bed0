"""What Prefect and the store cost a run: seconds of a flow in which no stage is at work.

    python tests/flows/overhead.py [--cached 7] [--built 3]

Against a server of its own (SQLite), each flow in a new process: all-cached flows, from after the imports to the result; and
flows that build all seven stages, of which the seconds in launched processes are taken off.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from orchestra import CHECKOUT, STAGES, Orchestra

TEN_MINUTES = 600.0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cached", type=int, default=7, help="flows in which all stages are sealed")
    parser.add_argument("--built", type=int, default=3, help="flows that build all stages")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(_measured()))
        return
    with tempfile.TemporaryDirectory(prefix="ups-overhead-") as directory:
        orchestra = Orchestra(Path(directory))
        try:
            built = [_one(orchestra, f"root-{number}") for number in range(options.built)]
            cached = [_one(orchestra, "root-0") for _ in range(options.cached)]
        finally:
            orchestra.stop()
    _print("imports", [one["imports"] for one in cached])
    _print("all-cached flow, after imports", [one["flow"] for one in cached])
    _print("the same without its report's process", [one["flow"] - one["launched"] for one in cached])
    _print("processor time of its process", [one["processor"] for one in cached])
    between = [one["flow"] - one["launched"] for one in built]
    _print(f"flow of {len(STAGES)} stages, without their processes", between)
    print(f"of a run of ten minutes: {median(between) / TEN_MINUTES:.2%}")


def _one(orchestra: Orchestra, root: str) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, __file__, "--one"],
        cwd=CHECKOUT, text=True, capture_output=True, check=False,
        env=orchestra.environment
        | {"UPS_ROOT": str(orchestra.root / root), "PYTHONPATH": f"{CHECKOUT}:{os.environ.get('PYTHONPATH', '')}"},
    )  # fmt: skip
    if done.returncode != 0:
        raise SystemExit(done.stdout + done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def _measured() -> dict[str, float]:
    """One flow, in this process."""
    begin = time.perf_counter()
    from flows.burgers_upt import burgers_upt
    from flows.experiment import Experiment
    from ups.pipeline import execute, run

    imported = time.perf_counter()
    launched, worked = 0.0, time.process_time()

    def timed(launch: Any) -> Any:
        def timed_launch(*arguments: Any, **options: Any) -> Any:
            nonlocal launched
            began = time.perf_counter()
            try:
                return launch(*arguments, **options)
            finally:
                launched += time.perf_counter() - began

        return timed_launch

    execute.launch, run.launch = timed(execute.launch), timed(run.launch)
    burgers_upt(Experiment(config="burgers_tiny"))
    return {
        "imports": imported - begin,
        "flow": time.perf_counter() - imported,
        "launched": launched,
        "processor": time.process_time() - worked,
    }


def _print(what: str, seconds: list[float]) -> None:
    repeats = "  ".join(f"{one:.2f}" for one in seconds)
    print(f"{what:45}  median {median(seconds):.2f} s   ({repeats})")


if __name__ == "__main__":
    main()
