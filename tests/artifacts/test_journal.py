"""A journal keeps what was added whole, whatever happened to the one who wrote after it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ups.artifacts.journal import read_journal, sole_writer
from ups.errors import IntegrityError, PreflightError, StorageError


def append(path: Path, *records: dict) -> None:
    with sole_writer(path) as journal:
        for record in records:
            journal.append(record)


def test_records_are_read_with_the_numbers_of_their_lines(tmp_path):
    path = tmp_path / "new" / "journal.jsonl"
    assert read_journal(path) == []
    append(path, {"a": 1}, {"b": "ü"})
    append(path, {"c": None})
    assert read_journal(path) == [(1, {"a": 1}), (2, {"b": "ü"}), (3, {"c": None})]


@pytest.mark.parametrize("torn", [b"{", b'{"b": 2}', b"\x00" * 70_000])
def test_a_torn_last_line_is_no_record_and_breaks_none(tmp_path, torn):
    path = tmp_path / "journal.jsonl"
    append(path, {"a": 1})
    with path.open("ab") as file:
        file.write(torn)
    assert read_journal(path) == [(1, {"a": 1})]
    append(path, {"c": 3})
    assert read_journal(path) == [(1, {"a": 1}), (2, {"c": 3})]
    assert path.read_bytes() == b'{"a": 1}\n{"c": 3}\n'


@pytest.mark.parametrize(("damage", "reason"), [(b"{]", "Expecting"), (b"[1]", "not a mapping")])
def test_a_damaged_line_is_named_and_nothing_is_added(tmp_path, damage, reason):
    path = tmp_path / "journal.jsonl"
    content = b'{"a": 1}\n' + damage + b'\n{"c": 3}\n'
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match=rf"line 2: is damaged: .*{reason}[^\n]*\n  fix: .*sed -i 2d"):
        append(path, {"d": 4})
    assert path.read_bytes() == content


def test_a_disk_that_fills_up_leaves_the_journal_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "journal.jsonl"
    append(path, {"a": 1})
    write = os.pwrite

    def fills_up(descriptor: int, content: bytes, offset: int) -> int:
        if len(content) < 5:
            raise OSError(28, "No space left on device")
        return write(descriptor, content[:5], offset)

    monkeypatch.setattr(os, "pwrite", fills_up)
    with pytest.raises(StorageError, match="No space left"):
        append(path, {"b": 2})
    assert path.read_bytes() == b'{"a": 1}\n'


def test_one_process_writes_at_a_time_and_a_killed_one_leaves_no_lock(tmp_path):
    path = tmp_path / "journal.jsonl"
    code = (
        "import sys, pathlib\n"
        "from ups.artifacts.journal import sole_writer\n"
        "with sole_writer(pathlib.Path(sys.argv[1])):\n"
        "    print('locked', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "locked\n"
    with pytest.raises(PreflightError, match="another process is writing it"):
        append(path, {"a": 1})
    other.kill()
    other.communicate()
    append(path, {"a": 1})
    assert len(read_journal(path)) == 1
