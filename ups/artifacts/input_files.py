"""Checksums of large input files, remembered under device, inode, size and modification time."""

import hashlib
import os
import stat
import time
from pathlib import Path

from ups.artifacts.checksums import file_checksums
from ups.artifacts.files import canonical_json, read_json, storage_error, write_json
from ups.errors import DataError, IntegrityError

_SETTLED_NANOSECONDS = 2_000_000_000


def content_of_file(path: Path, root: Path) -> str:
    """sha256 of a file; computed once as long as the file is not touched.

    Args:
        path: the input file.
        root: where `artifacts/.sums.json` remembers.

    Raises:
        DataError: the file is not there or cannot be read.
        StorageError: reading failed, or the sum cannot be written down.
    """
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(
            "no such file", where=str(path), fix="check data.path; it is relative to the configuration file"
        ) from None
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=str(path), fix="check data.path") from None
    if not stat.S_ISREG(status.st_mode):
        raise DataError("is not a regular file", where=str(path), fix="check data.path")
    key, memory = _key(status), _memory(root)
    known = _recall(memory)
    if key not in known:
        try:
            known[key] = file_checksums(path).sha256
        except PermissionError:
            raise DataError("may not be read", where=str(path), fix="check its permissions") from None
        except OSError as error:
            raise storage_error(error, path) from error
        # A file that is written to again within the clock's resolution keeps its time of modification.
        if time.time_ns() - status.st_mtime_ns > _SETTLED_NANOSECONDS:
            write_json(memory, {"known": known, "sum": _sum(known)})
    return known[key]


def recorded_content(path: Path, root: Path) -> str | None:
    """The sha256 that was recorded when a file was first used, if it was and has not been written to since.

    Bits that flip on a disk change no time of modification: only this sum tells.
    """
    try:
        return _recall(_memory(root)).get(_key(path.stat()))
    except OSError:
        return None


def _memory(root: Path) -> Path:
    return root / "artifacts" / ".sums.json"


def _key(status: os.stat_result) -> str:
    return f"{status.st_dev}:{status.st_ino}:{status.st_size}:{status.st_mtime_ns}"


def _recall(memory: Path) -> dict[str, str]:
    """What is remembered; nothing if the memory is damaged: all of it can be computed again."""
    try:
        values = read_json(memory)
        if values["sum"] == _sum(values["known"]):
            return values["known"]
    except (FileNotFoundError, NotADirectoryError, IntegrityError, KeyError, TypeError):
        pass
    return {}


def _sum(known: dict[str, str]) -> str:
    return hashlib.sha256(canonical_json(known)).hexdigest()
