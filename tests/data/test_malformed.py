"""Files spoiled in more than a thousand ways: every one ends in a typed error, the same data, or a known change.

No way may crash the process, hang it or take memory without bound. The files are read in processes of their own
(malformed.py), one for each file that is spoiled; one that dies is started again behind the file that killed it.
A test for each of the files, not for each of the ways: pytest would take as long as the reader.
"""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import malformed
import pytest
from malformed import cases
from malformed_bases import BASES, GENUINE, Case, make_base

CASES = cases()
MEMORY = 64 * 1024 * 1024  # the genuine files of 3 MB take 20
FAST = {"advection1d", "burgers1d-texts", "1D_Burgers_Sols_Nu0.01"}


def read_all(base: str, directory: Path) -> dict[int, dict]:
    """What became of each case of a base, by its number. A case that killed the process has no "seconds"."""
    if base in GENUINE:
        shutil.copyfile(_genuine_file(base), directory / f"{base}.hdf5")
    else:
        make_base(base, directory / f"{base}.hdf5")
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(str(folder) for folder in Path(__file__).parents[1:3]),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    found: dict[int, dict] = {}
    start = 0
    while start < len(CASES):
        command = [sys.executable, malformed.__file__, str(directory), base, str(start)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        said = [json.loads(line) for line in done.stdout.splitlines()]
        found |= {line["index"]: line for line in said if "index" in line}
        if done.returncode == 0:
            break
        begun = [line["begin"] for line in said if "begin" in line]
        assert begun, f"the reading process died by itself: {done.stderr}"
        assert begun[-1] not in found, f"died between two cases: {done.stderr}"
        found[begun[-1]] = {"died": done.returncode, "stderr": done.stderr}
        start = begun[-1] + 1
    return found


def _genuine_file(base: str) -> Path:
    """Where conftest.py looks for it."""
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    folder = Path(os.environ.get("UPS_GENUINE_DATA", beside))
    for path in folder.glob(f"{base}.rows*.hdf5"):
        return path
    pytest.skip("no genuine PDEBench rows")


def wrong(case: Case, outcome: dict) -> str | None:
    """What is not as it must be."""
    if "died" in outcome:
        return f"killed the process: {outcome}"
    if "error" not in outcome:
        if case.outcome == "error":
            return "was read as if nothing were wrong"
        if case.outcome == "equal" and outcome["differs"] != []:
            return f"differs in {outcome['differs']}"
        if case.outcome == "row" and (outcome["differs"], outcome["rows"]) != (["rows"], [case.row]):
            return f"differs in {outcome['differs']}, rows {outcome['rows']}"
        return None
    if case.outcome == "equal":
        return f"was refused: {outcome['message']}"
    row = "" if case.row is None else f"row {case.row}"
    told = [outcome["path"], "fix:", case.about, row]
    if outcome["error"] != "DataError" or not all(part in outcome["message"] for part in told):
        return f"{outcome['error']} does not tell {told}: {outcome['message']}"
    return None


def test_there_are_enough_of_them():
    assert len(CASES) >= 500
    assert len({case.name for case in CASES}) == len(CASES)
    assert Counter(case.outcome for case in CASES)["error"] >= 500


@pytest.mark.parametrize(
    "base", [pytest.param(base, marks=() if base in FAST else pytest.mark.slow) for base in BASES]
)
def test_a_spoiled_file_ends_in_an_error_or_in_known_data(tmp_path, base):
    outcomes = read_all(base, tmp_path)
    of_base = {index: case for index, case in enumerate(CASES) if case.base == base}
    assert outcomes.keys() == of_base.keys()
    found = {case.name: wrong(case, outcomes[index]) for index, case in of_base.items()}
    assert {name: what for name, what in found.items() if what is not None} == {}

    slowest = max(outcomes.values(), key=lambda outcome: outcome["seconds"])
    assert slowest["seconds"] < malformed.SECONDS
    peaks = [outcome["peak"] for outcome in outcomes.values()]
    assert max(peaks) - min(peaks) < MEMORY
