"""Compiled code is kept below the root, up to a quota."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import clean_environment

from ups.pipeline.compile_cache import compile_cache, trim


def test_it_is_below_the_root_and_a_users_own_stays(tmp_path, monkeypatch):
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    assert compile_cache(tmp_path / "artifacts") == {
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "artifacts" / ".compiled")
    }
    assert (tmp_path / "artifacts" / ".compiled").is_dir()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "elsewhere")
    assert compile_cache(tmp_path / "artifacts") == {}


def test_what_was_written_longest_ago_goes_first(tmp_path):
    for age, name in enumerate(["new", "old", "oldest"]):
        place = tmp_path / name / "deep"
        place.mkdir(parents=True)
        (place / "code").write_bytes(bytes(100_000))
        for path in (place / "code", place, tmp_path / name):
            os.utime(path, (1e9 - 1e6 * age, 1e9 - 1e6 * age))
    (tmp_path / "file").write_bytes(bytes(10))
    trim(tmp_path, 350_000)
    assert {path.name for path in tmp_path.iterdir()} == {"new", "old", "oldest", "file"}
    trim(tmp_path, 220_000)
    assert {path.name for path in tmp_path.iterdir()} == {"new", "old", "file"}
    trim(tmp_path, 0)
    assert list(tmp_path.iterdir()) == []


COMPILES = """
import torch
from torch._dynamo.utils import counters
weight = torch.ones(8, 8, requires_grad=True)
torch.compile(lambda x: (x @ weight).sin().exp(), fullgraph=True)(torch.ones(3, 8)).sum().backward()
print(counters["inductor"]["fxgraph_cache_hit"])
"""


@pytest.mark.slow
def test_a_second_process_compiles_nothing_that_the_first_has_compiled(tmp_path, monkeypatch):
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)

    def hits_and_programs() -> tuple[int, set[Path]]:
        done = subprocess.run(
            [sys.executable, "-c", COMPILES],
            capture_output=True,
            text=True,
            check=True,
            env=clean_environment() | compile_cache(tmp_path),
        )
        return int(done.stdout), set((tmp_path / ".compiled").rglob("*.so"))

    hits, programs = hits_and_programs()
    assert hits == 0
    assert programs
    hits, after = hits_and_programs()
    assert hits > 0
    assert after == programs
