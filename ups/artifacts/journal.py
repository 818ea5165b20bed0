"""Files of JSON records, one a line, to which lines are added and nothing is changed.

A line counts once it ends: what a killed writer or a full disk left of one is cut off by the next writer and read by nobody.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ups.artifacts.files import storage_error, sync_directory
from ups.errors import IntegrityError, PreflightError

Record = dict[str, Any]


class Journal:
    """A journal that nobody else writes meanwhile; see `sole_writer`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records = read_journal(path)

    def append(self, record: Record) -> None:
        """Add a record; it is on the disk when this returns.

        Raises:
            StorageError: the disk is full, read-only or failing; the journal is as it was.
        """
        line = json.dumps(record, sort_keys=True, allow_nan=False).encode() + b"\n"
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                end = _end_of_lines(descriptor)
                os.ftruncate(descriptor, end)
                try:
                    written = os.pwrite(descriptor, line, end)
                    while written < len(line):  # a disk that fills up takes a part first
                        written += os.pwrite(descriptor, line[written:], end + written)
                    os.fsync(descriptor)
                except OSError:
                    with suppress(OSError):  # what failed is the news; the next writer cuts it off too
                        os.ftruncate(descriptor, end)
                    raise
            finally:
                os.close(descriptor)
            sync_directory(self.path.parent)
        except OSError as error:
            raise storage_error(error, self.path) from error
        self.records.append((len(self.records) + 1, record))


@contextmanager
def sole_writer(path: Path, *, wait_seconds: float = 0) -> Iterator[Journal]:
    """The journal, locked as long as the block lasts; a killed holder frees it.

    Raises:
        PreflightError: another process writes it, for longer than `wait_seconds`.
        IntegrityError: see `read_journal`.
        StorageError: the directory cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=wait_seconds, fallback_to_soft=False)
        lock.acquire()
    except Timeout:
        raise PreflightError(
            "another process is writing it", where=str(path), fix="wait for its end, and repeat the command"
        ) from None
    except OSError as error:
        raise storage_error(error, path) from error
    try:
        yield Journal(path)
    finally:
        lock.release()


def read_journal(path: Path) -> list[tuple[int, Record]]:
    """Records with the numbers of their lines, from 1; none where there is no file.

    Raises:
        IntegrityError: a line that ended is no JSON object.
        StorageError: the file cannot be read.
    """
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise storage_error(error, path) from error
    return [(number, _record(line, path, number)) for number, line in enumerate(lines, 1)]


def _record(line: bytes, path: Path, number: int) -> Record:
    try:
        record = json.loads(line)
    except ValueError as error:
        reason = str(error)
    else:
        if isinstance(record, dict):
            return record
        reason = "it is not a mapping"
    raise IntegrityError(
        f"is damaged: {reason}",
        where=f"{path}, line {number}",
        fix=f"restore the file, or take the line out: sed -i {number}d {path}",
    )


def _end_of_lines(descriptor: int) -> int:
    """Where the last line that ended does."""
    end = os.fstat(descriptor).st_size
    while end:
        start = max(0, end - 65_536)
        found = os.pread(descriptor, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
