"""An input file is its content; its sum is taken once."""

import os
import time

import pytest

from ups.artifacts import input_files
from ups.artifacts.input_files import content_of_file
from ups.errors import DataError


@pytest.fixture
def count_sums(monkeypatch):
    taken = []
    real = input_files.file_checksums

    def counting(path):
        taken.append(path.name)
        return real(path)

    monkeypatch.setattr(input_files, "file_checksums", counting)
    return taken


def test_a_file_is_read_once_as_long_as_it_is_not_touched(tmp_path, count_sums):
    file = tmp_path / "data.hdf5"
    file.write_bytes(b"content")
    os.utime(file, (100, 100))
    first = content_of_file(file, tmp_path)
    assert content_of_file(file, tmp_path) == first
    moved = file.rename(tmp_path / "moved.hdf5")
    assert content_of_file(moved, tmp_path) == first
    assert count_sums == ["data.hdf5"]
    os.utime(moved, (1, 1))
    assert content_of_file(moved, tmp_path) == first
    moved.write_bytes(b"CONTENT")
    assert content_of_file(moved, tmp_path) != first
    assert count_sums == ["data.hdf5", "moved.hdf5", "moved.hdf5"]


def test_a_file_that_was_just_written_is_not_remembered(tmp_path):
    """Written to again at once, with as many bytes, it may have the same time of modification."""
    file = tmp_path / "data.hdf5"
    sums_seen = set()
    now = time.time_ns()
    for content in (b"first", b"again", b"third"):
        file.write_bytes(content)
        os.utime(file, ns=(now, now))
        sums_seen.add(content_of_file(file, tmp_path))
    assert len(sums_seen) == 3


def test_a_damaged_memory_is_forgotten(tmp_path, count_sums):
    file = tmp_path / "data.hdf5"
    file.write_bytes(b"content")
    os.utime(file, (100, 100))
    right = content_of_file(file, tmp_path)
    memory = tmp_path / "artifacts" / ".sums.json"
    text = memory.read_text()
    for damaged in (text.replace(right, "0" * 64), text[:-9], "[]", "{}", ""):
        memory.write_text(damaged)
        assert content_of_file(file, tmp_path) == right
    assert len(count_sums) == 6


def test_what_is_no_readable_file_is_refused(tmp_path):
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)  # reading it would wait for ever
    plain = tmp_path / "plain"
    plain.write_text("x")
    for path in (tmp_path, tmp_path / "absent", fifo, plain / "below", tmp_path / ("n" * 300)):
        with pytest.raises(DataError) as caught:
            content_of_file(path, tmp_path)
        assert str(path) in str(caught.value)
        assert "data.path" in str(caught.value)
