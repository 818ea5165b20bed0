"""Many short runs through one server and one worker: does anything grow?

    python tests/flows/soak.py [--runs 500] [--warm-up 50] [--sqlite] [--samples FILE]

Every second run finds all stages sealed; the others train one more student and evaluate it. After each run memory and
open files of server and worker are noted, what processes there are, and the highest of what its flow process took. What
grows after the warm-up, by more than a share of itself and more surely than its noise allows, fails (exit code 1). Disk is
shown and not judged: every run leaves a directory, records of Prefect, and what it has built.
"""

import argparse
import json
import math
import os
import signal
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import median

from orchestra import Orchestra
from postgres import Postgres
from rich.console import Console
from rich.table import Table

sys.path.append(str(Path(__file__).parents[1]))
from marked_processes import MARKER_VARIABLE, marked

ALLOWED = 0.1  # growth over all runs after the warm-up, as a part of the median
POLL_SECONDS = 0.2
NORMAL_95 = 1.96


@dataclass(frozen=True)
class Growth:
    """Of one measured quantity, per run: Theil and Sen's slope, and the lower end of its 95 % interval."""

    slope: float
    surely: float

    @classmethod
    def of(cls, runs: Sequence[int], values: Sequence[float]) -> "Growth":
        """The median of the slopes between all pairs, which a few outliers do not move; its interval by Kendall's
        variance (Sen 1968)."""
        points = list(zip(runs, values, strict=True))
        slopes = sorted((b[1] - a[1]) / (b[0] - a[0]) for a, b in combinations(points, 2))
        n = len(points)
        below = (len(slopes) - NORMAL_95 * math.sqrt(n * (n - 1) * (2 * n + 5) / 18)) / 2
        return cls(median(slopes), slopes[max(0, math.floor(below))])


def main() -> int:
    """Soak, and print the table; the exit code."""
    options = _parse()
    # However it is told to end, and though a shell's job in the background ignores SIGINT, the server is ended too.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    postgres = None if options.sqlite else Postgres()
    with tempfile.TemporaryDirectory(prefix="ups-soak-") as directory:
        settings = {MARKER_VARIABLE: uuid.uuid4().hex}
        if postgres is not None:
            settings["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = postgres.url
        orchestra = Orchestra(Path(directory), **settings)
        try:
            orchestra.deploy()
            orchestra.start_worker()
            samples = list(_soak(orchestra, options.runs, options.samples))
        finally:
            orchestra.stop()
            if postgres is not None:
                postgres.close()
    left = marked(settings[MARKER_VARIABLE])
    for command in left.values():
        print("left behind:", *command)
    return 1 if something_grows(samples, options.warm_up) or left else 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--warm-up", type=int, help="runs that are not judged; a tenth, if not given")
    parser.add_argument(
        "--sqlite",
        action="store_true",
        help="as the server's database, not PostgreSQL as of a standing server",
    )
    parser.add_argument("--samples", type=Path, help="a file for what was measured, one JSON object per run")
    options = parser.parse_args()
    options.warm_up = max(4, options.runs // 10) if options.warm_up is None else options.warm_up
    if options.runs < options.warm_up + 8:
        parser.error("--runs must be at least eight more than --warm-up")
    return options


def _soak(orchestra: Orchestra, runs: int, file: Path | None) -> Iterator[dict[str, float]]:
    home = Path(orchestra.environment["PREFECT_HOME"])
    for number in range(runs):
        trains = number % 2 == 0  # the first builds all
        overrides = {"training.consistency.learning_rate": 1e-3 * (1 + number / runs)} if trains else {}
        begin = time.monotonic()
        with _highest_of_the_flow(orchestra) as flow:
            flow_run = orchestra.run(overrides if number else {})
            state = orchestra.final_state(flow_run)
        if state != "Completed":
            raise SystemExit(f"run {number} ended as {state}:\n{orchestra.worker_said()[-3000:]}")
        kind = "a flow that trains" if trains else "an all-cached flow"
        sample = (
            {"run": number, "seconds": time.monotonic() - begin}
            | {f"{what} of {kind}": value for what, value in flow.items()}
            | {f"{what} of the server": value for what, value in _taken(orchestra.server.pid).items()}
            | {f"{what} of the worker": value for what, value in _taken(orchestra.worker.pid).items()}
            | {
                "processes at rest": _at_rest(orchestra),
                "directories of unfinished work": len(list(orchestra.root.glob("artifacts/.work/*/*"))),
                "disk, MB: Prefect": _megabytes(home),
                "disk, MB: runs": _megabytes(orchestra.root / "runs"),
                "disk, MB: artifacts": _megabytes(orchestra.root / "artifacts"),
            }
        )
        if file is not None:
            with file.open("a") as lines:
                lines.write(json.dumps(sample) + "\n")
        print(f"run {number + 1} of {runs}: {kind}, {sample['seconds']:.1f} s", flush=True)
        yield sample


@contextmanager
def _highest_of_the_flow(orchestra: Orchestra) -> Iterator[dict[str, float]]:
    """Of all that was seen of the process that runs the flow."""
    highest: dict[str, float] = {}
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(POLL_SECONDS):
            for pid, command in marked(orchestra.environment[MARKER_VARIABLE]).items():
                if "prefect.flow_engine" in command or "prefect.engine" in command:
                    for what, value in _taken(pid).items():
                        highest[what] = max(value, highest.get(what, 0))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield highest
    finally:
        ended.set()
        thread.join()


def _taken(pid: int) -> dict[str, float]:
    """Resident memory and open files of a process; nothing of one that has ended."""
    with suppress(OSError, StopIteration):
        status = Path(f"/proc/{pid}/status").read_text().splitlines()
        kilobytes = next(line.split()[1] for line in status if line.startswith("VmRSS:"))
        handles = len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208, names are not read
        return {"memory, MB,": int(kilobytes) / 1024, "open files": handles}
    return {}


def _at_rest(orchestra: Orchestra) -> int:
    """Processes of the server and the worker, and whoever else stays."""
    marker = orchestra.environment[MARKER_VARIABLE]
    gives_up_at = time.monotonic() + 60
    while len(marked(marker)) > 2 and time.monotonic() < gives_up_at:
        time.sleep(POLL_SECONDS)
    return len(marked(marker))


def _megabytes(directory: Path) -> float:
    files = (path for path in directory.rglob("*") if path.is_file())
    total = 0
    for path in files:
        with suppress(FileNotFoundError):
            total += path.stat().st_blocks * 512
    return total / 1e6


def something_grows(samples: list[dict[str, float]], warm_up: int) -> bool:
    """Print what was measured; whether anything grows that should not."""
    judged = samples[warm_up:]
    table = Table(
        "", "median", "growth per run", "surely, in all", "", title=f"{len(judged)} runs after {warm_up}"
    )
    failed = False
    names = list(
        dict.fromkeys(name for sample in judged for name in sample if name not in {"run", "seconds"})
    )
    for name in names:
        seen = [(int(sample["run"]), sample[name]) for sample in judged if name in sample]
        runs, values = zip(*seen, strict=True)
        growth = Growth.of(runs, values)
        surely = max(0.0, growth.surely) * len(judged)
        # Less than one process or open file in all is none.
        grows = surely > max(ALLOWED * median(values), 0.0 if "MB" in name else 0.5)
        verdict = "" if name.startswith("disk") else "GROWS" if grows else "ok"
        failed |= verdict == "GROWS"
        table.add_row(name, f"{median(values):.1f}", f"{growth.slope:+.3f}", f"{surely:.1f}", verdict)
    seconds = [sample["seconds"] for sample in judged]
    Console(width=110).print(table)
    print(f"seconds of a run: median {median(seconds):.1f}, longest {max(seconds):.1f}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
