"""Durable files: write aside, flush, rename."""

import errno
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from ups.errors import DiskFullError, IntegrityError, StorageError

REQUEST_FILE, OUTCOME_FILE = "request.json", "outcome.json"
"""In a work directory: what its processes are asked to do, and what they write when all is done."""


def canonical_json(value: Any) -> bytes:
    """One byte string per value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def json_text(value: Any) -> str:
    """JSON as `write_json` writes it: sorted keys, two spaces, no NaN."""
    return json.dumps(value, indent=2, sort_keys=True, allow_nan=False)


def write_json(path: Path, value: Any) -> None:
    """Write JSON durably: a reader sees the old file or the new one.

    Raises:
        StorageError: the disk is full, read-only or failing.
    """
    write_text(path, json_text(value))


def read_records(path: Path) -> list[dict[str, Any]]:
    """JSON objects, one per line, of a file that grows; none where there is no file.

    A torn last line, left by a killed writer or a full disk, is not a record.
    """
    if not path.exists():
        return []
    text = path.read_text()
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def write_text(path: Path, text: str) -> None:
    """Write a text file durably, as `write_bytes`."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file durably: a reader sees the old file or the new one.

    A writer that is killed leaves a file whose name starts with a dot (see `is_remains`).

    Raises:
        StorageError: the disk is full, read-only or failing.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        publish(temporary, path)
    except OSError as error:
        with suppress(OSError):  # what failed is the news, not that its remains stay
            temporary.unlink()
        raise storage_error(error, path) from error


def publish(temporary: Path, path: Path) -> None:
    """Give a finished file its name, durably: readers see the old file or the new one, also after a power cut."""
    sync_file(temporary)
    temporary.replace(path)
    sync_directory(path.parent)


def is_remains(path: Path) -> bool:
    """Whether a file is what a killed writer left: ours begin with a dot, zarr's end in `.partial`."""
    return path.name.startswith(".") or path.suffix == ".partial"


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        IntegrityError: the file is damaged. Absence is the caller's business (FileNotFoundError).
        StorageError: it cannot be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"is not JSON: {error}", where=str(path)) from error
    except FileNotFoundError:
        raise
    except OSError as error:
        raise storage_error(error, path) from error


def sync_file(path: Path) -> None:
    """Flush a file's data to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def refuse(error: OSError) -> NoReturn:
    """For os.walk, which skips a directory that it cannot list, and says nothing."""
    raise error


def sync_tree(directory: Path) -> None:
    """Flush all files below a directory, and the names by which they are found there, to the disk."""
    for parent, _, files in os.walk(directory, topdown=False, onerror=refuse):
        for name in files:
            sync_file(Path(parent) / name)
        sync_directory(Path(parent))


sync_directory = sync_file  # a rename is durable once its directory is flushed, by the same call


def storage_error(error: OSError, path: Path) -> StorageError:
    """Name the path (the one the system complained of, if it said) and say what can be done about it."""
    kind = StorageError
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        kind = DiskFullError
        fix = "free space (`ups cache gc --dry-run` shows what may go) or choose another --root; then run the same command again"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOENT):
        fix = "make it a directory that you may write to, or choose another --root"
    elif error.errno == errno.ENOSYS:
        fix = "choose another --root, on a file system that has locks (flock)"
    elif error.errno in (errno.EMFILE, errno.ENFILE):
        fix = "raise the limit on open files (`ulimit -n`)"
    else:
        fix = "check the disk; then run the same command again"
    where = error.filename if isinstance(error.filename, str) else path
    return kind(error.strerror or str(error), where=str(where), fix=fix)
