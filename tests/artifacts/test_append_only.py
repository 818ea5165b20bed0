"""A file that only grows: what is damaged costs itself alone, and writers do not meet."""

import json
import subprocess
import sys

import pytest

from ups.artifacts import append_only
from ups.artifacts.append_only import append_lines, read_lines
from ups.errors import StorageError


def test_a_torn_last_line_is_named_and_costs_no_later_record(tmp_path):
    path = tmp_path / "lines.jsonl"
    append_lines(path, lambda _: [{"n": 1}])
    path.write_text(path.read_text() + '{"n": ')
    append_lines(path, lambda known: [{"n": len(known) + 1}])
    records, problems = read_lines(path, dict)
    assert records == [{"n": 1}, {"n": 2}]
    assert len(problems) == 1
    assert problems[0].startswith(f"{path}, line 2: ")


@pytest.mark.parametrize("damage", ["nonsense", "[1]", '"text"', "\ufffd\x00", '{"other": 1}'])
def test_what_is_no_record_is_named_by_its_line(tmp_path, damage):
    path = tmp_path / "lines.jsonl"
    path.write_text(f'{{"n": 1}}\n{damage}\n\n{{"n": 3}}\n')
    numbers, problems = read_lines(path, lambda record: record["n"])
    assert numbers == [1, 3]
    assert [problem.partition(": ")[0] for problem in problems] == [f"{path}, line 2"]


def test_no_file_has_no_records(tmp_path):
    assert read_lines(tmp_path / "none.jsonl", dict) == ([], [])


PROGRAM = """
import sys
from pathlib import Path
from ups.artifacts.append_only import append_lines
for _ in range(40):
    append_lines(Path(sys.argv[1]), lambda known: [{"n": len(known), "of": sys.argv[2], "long": "x" * 9000}])
"""


def test_writers_take_turns(tmp_path):
    """Each looks at what is there and adds to it: with two at once a number would be there twice."""
    path = tmp_path / "lines.jsonl"
    writers = [subprocess.Popen([sys.executable, "-c", PROGRAM, path, name]) for name in "ab"]
    assert [writer.wait() for writer in writers] == [0, 0]
    records, problems = read_lines(path, dict)
    assert [record["n"] for record in records] == list(range(80))
    assert problems == []


def test_a_failed_write_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "lines.jsonl"
    append_lines(path, lambda _: [{"n": 1}])

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(append_only.os, "fsync", fail)
    with pytest.raises(StorageError, match="No space left"):
        append_lines(path, lambda _: [{"n": 2}])
    assert [json.loads(line) for line in path.read_text().splitlines()] == [{"n": 1}]
