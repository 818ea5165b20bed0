"""Files spoiled in more than a thousand ways: every one ends in a typed error, the same data, or a known change.

No way may crash the process, hang it or take memory without bound. The files are read in processes of their own
(malformed.py); one that dies is started again behind the file that killed it.
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
from malformed_bases import BASES, GENUINE, make_base

CASES = cases()
MEMORY = 64 * 1024 * 1024  # the genuine files of 3 MB take 20


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory) -> dict[int, dict]:
    """What became of each case, by its number. A case that killed the process has no "seconds"."""
    directory = tmp_path_factory.mktemp("malformed")
    (directory / "spoiled").mkdir()
    for base in BASES:
        if base not in GENUINE:
            make_base(base, directory / f"{base}.hdf5")
    for path in _genuine_files():
        shutil.copyfile(path, directory / f"{path.name.partition('.rows')[0]}.hdf5")
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(str(folder) for folder in Path(__file__).parents[1:3]),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    found: dict[int, dict] = {}
    start = 0
    while start < len(CASES):
        command = [sys.executable, malformed.__file__, str(directory), str(start)]
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


def _genuine_files() -> list[Path]:
    """Where conftest.py looks for them; none is no error here, there are the other bases."""
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    folder = Path(os.environ.get("UPS_GENUINE_DATA", beside))
    return [path for name in GENUINE for path in folder.glob(f"{name}.rows*.hdf5")]


def outcome_of(index: int, outcomes: dict[int, dict]) -> dict:
    case = CASES[index]
    if case.base in GENUINE and index not in outcomes:
        pytest.skip("no genuine PDEBench rows")
    outcome = outcomes[index]
    assert "died" not in outcome, f"killed the process: {outcome}"
    return outcome


def test_there_are_enough_of_them():
    assert len(CASES) >= 500
    assert len({case.name for case in CASES}) == len(CASES)
    assert Counter(case.outcome for case in CASES)["error"] >= 500


@pytest.mark.parametrize("index", range(len(CASES)), ids=[case.name for case in CASES])
def test_a_spoiled_file_ends_in_an_error_or_in_known_data(index, outcomes):
    case, outcome = CASES[index], outcome_of(index, outcomes)
    if "error" in outcome:
        assert case.outcome != "equal", outcome["message"]
        assert outcome["error"] == "DataError"
        assert outcome["path"] in outcome["message"]
        assert "fix:" in outcome["message"]
        assert case.about in outcome["message"]
        assert case.row is None or f"row {case.row}" in outcome["message"]
        return
    assert case.outcome != "error", "was read as if nothing were wrong"
    if case.outcome == "equal":
        assert outcome["differs"] == []
    if case.outcome == "row":
        assert outcome["differs"] == ["rows"]
        assert outcome["rows"] == [case.row]


def test_none_takes_long_or_much_memory(outcomes):
    lived = [outcome for outcome in outcomes.values() if "died" not in outcome]
    slowest = max(lived, key=lambda outcome: outcome["seconds"])
    assert slowest["seconds"] < malformed.SECONDS
    peaks = [outcome["peak"] for outcome in lived]
    assert max(peaks) - min(peaks) < MEMORY
