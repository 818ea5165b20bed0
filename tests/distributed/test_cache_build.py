"""The cache built by real ranks under torchrun: the same bytes as by one process, whoever was killed on the way."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cached import ROWS, build_small_cache, contents

PROGRAM = Path(__file__).with_name("programs") / "build_cache.py"

pytestmark = pytest.mark.slow


def torchrun(directory: Path, *deed: str, world: int = 2) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={world}"]
    return subprocess.run(
        [*command, str(PROGRAM), str(directory), *deed],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


@pytest.fixture(scope="module")
def by_one_process(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files that one process builds."""
    return contents(build_small_cache(tmp_path_factory.mktemp("one"))[0])


def records(directory: Path) -> int:
    return sum(1 for _ in (directory / "chunks").rglob("*.json"))


CHUNKS = sum(-(-rows // 4) for rows in ROWS.values())


def test_two_ranks_build_what_one_does(tmp_path, by_one_process):
    done = torchrun(tmp_path)
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "output") == by_one_process
    assert records(tmp_path) == CHUNKS


def test_after_a_rank_was_killed_one_process_goes_on(tmp_path, by_one_process):
    """It read once for the statistics and is killed at the third of its chunks."""
    done = torchrun(tmp_path, "kill", "4")
    assert done.returncode != 0
    assert records(tmp_path) < CHUNKS
    assert contents(build_small_cache(tmp_path)[0]) == by_one_process


def test_a_rank_that_is_told_to_stop_stops_all_after_their_chunks(tmp_path, by_one_process):
    """Only one of two gets the signal; three go on."""
    done = torchrun(tmp_path, "terminate", "3")
    assert done.returncode != 0
    assert (tmp_path / "interrupted.json").exists(), done.stderr
    done = torchrun(tmp_path, world=3)
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "output") == by_one_process
