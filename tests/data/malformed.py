"""All ways to spoil a file, and a process that reads the spoiled ones: `python malformed.py DIRECTORY BASE START`.

The list is the same in every process. The reading process says "begin" before each file and tells the outcome
after it, so that the file that crashes or hangs it is known.
"""

import hashlib
import json
import resource
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
from malformed_bases import BASES, Case, problem_of
from malformed_bytes import byte_cases, value_cases, whole_file_cases
from malformed_datasets import attribute_cases, dataset_cases

from ups.data.pdebench import inspect, read_trajectories
from ups.errors import UpsError
from ups.problems import PROBLEMS, Problem

SECONDS = 10
EXTRA_MEMORY = 512 * 1024 * 1024


def cases() -> list[Case]:
    """All of them, always the same."""
    every: list[Case] = []
    for base in BASES:
        every += byte_cases(base)
        every += value_cases(base)
        if base in PROBLEMS:
            every += whole_file_cases(base)
            every += dataset_cases(base)
            every += attribute_cases(base)
    return every


def _content(path: Path, problem: Problem) -> dict[str, object]:
    """All that the reader tells of a file, by name."""
    described = inspect(path, problem=problem.name)
    read = read_trajectories(path, np.arange(described.rows), problem=problem.name)
    return {
        "rows": [hashlib.sha256(row.tobytes()).hexdigest() for row in read.fields],
        "shape": read.fields.shape,
        "names": read.names,
        "known": read.known.tolist(),
        "times": read.times.tolist(),
        "coordinates": [axis.tolist() for axis in read.coordinates],
        "parameters": read.parameters,
        "boundary": read.boundary,
        "original_rows": None if described.original_rows is None else described.original_rows.tolist(),
    }


def _outcome(path: Path, problem: Problem, expected: dict[str, object]) -> dict[str, object]:
    try:
        found = _content(path, problem)
    except UpsError as error:
        return {"error": type(error).__name__, "message": str(error)}
    differs = sorted(name for name in expected if found[name] != expected[name])
    rows = zip(found["rows"], expected["rows"], strict=False)
    return {"differs": differs, "rows": [index for index, (a, b) in enumerate(rows) if a != b]}


def _say(**said: object) -> None:
    print(json.dumps(said), flush=True)


def main() -> None:
    """Read all cases of the base from the given one on; its file is in the directory."""
    directory, wanted, start = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    base, problem = directory / f"{wanted}.hdf5", problem_of(wanted)
    spoiled = directory / "spoiled"
    spoiled.mkdir(exist_ok=True)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + EXTRA_MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    original = _content(base, problem)
    for index, case in enumerate(cases()):
        if index < start or case.base != wanted:
            continue
        path = spoiled / f"{index}.hdf5"
        shutil.copyfile(base, path)
        case.spoil(path)
        _say(begin=index)
        signal.alarm(SECONDS)  # ends this process
        began = time.monotonic()
        outcome = _outcome(path, problem, original)
        signal.alarm(0)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        _say(index=index, path=str(path), seconds=time.monotonic() - began, peak=1024 * peak, **outcome)
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
