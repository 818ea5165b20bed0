"""Files that only grow: a JSON object a line, each written whole and flushed, by one process at a time.

A line that cannot be read, torn by a power cut or damaged by hand, costs itself alone: it is named, and the others count.
Rejected: a database, whose damage costs all, and which no other tool reads by eye.
"""

import fcntl
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from ups.artifacts.files import storage_error, sync_directory

Record = dict[str, Any]
T = TypeVar("T")


def read_lines(path: Path, parse: Callable[[Record], T]) -> tuple[list[T], list[str]]:
    """What `parse` makes of the records of a file, none where there is no file; and of each line that is no record, where it
    is and what is wrong.

    parse: raises KeyError, TypeError or ValueError for what is no record.

    Raises:
        StorageError: it cannot be read.
    """
    try:
        return _parsed(path.read_bytes(), path, parse)
    except FileNotFoundError:
        return [], []
    except OSError as error:
        raise storage_error(error, path) from error


def append_lines(path: Path, choose: Callable[[list[Record]], Sequence[Record]]) -> list[Record]:
    """Add the records that `choose` finds missing, of those that are there; nobody else adds any meanwhile.

    Returns: those that were added.

    Raises:
        StorageError: the disk is full, read-only or failing; then nothing was added, or whole lines were.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            content = file.read()
            added = list(choose(_parsed(content, path, dict[str, Any])[0]))
            if added:
                _write(file, content, added)
        sync_directory(path.parent)
    except OSError as error:
        raise storage_error(error, path) from error
    return added


def _write(file: BinaryIO, content: bytes, records: Sequence[Record]) -> None:
    text = "".join(json.dumps(record, sort_keys=True, allow_nan=False) + "\n" for record in records)
    begun = b"\n" if content and not content.endswith(b"\n") else b""  # a torn line stays one of its own
    try:
        file.write(begun + text.encode())
        file.flush()
        os.fsync(file.fileno())
    except OSError:
        file.truncate(len(content))
        raise


def _parsed(content: bytes, path: Path, parse: Callable[[Record], T]) -> tuple[list[T], list[str]]:
    found: list[T] = []
    problems = []
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line:
            continue
        try:
            record = json.loads(line)
            if not isinstance(record, dict):
                raise TypeError("it is no object")
            found.append(parse(record))
        except (KeyError, TypeError, ValueError) as error:
            problems.append(
                f"{path}, line {number}: is no record and does not count ({error!r}); the others do. Remove the line"
            )
    return found, problems
