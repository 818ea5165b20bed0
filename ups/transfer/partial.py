"""A file while it is fetched: its lock, the check for room, and what its bytes are the beginning of.

`.<name>.lock`, `.<name>.partial` and `.<name>.partial.json` lie beside the destination, so that the last step is
a rename on one disk. The lock file stays: removing it would split those who wait for it. How far a file got is its
size: it only grows at its end, and a journalling file system does not record a size before the bytes are there.
"""

import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from ups.artifacts.files import read_json, storage_error, write_json
from ups.errors import IntegrityError, PreflightError, StorageError
from ups.transfer.retry import Deadline

_BLOCK = 1 << 20


class RunningChecksums:
    """MD5 and sha256 of the same bytes, and their number."""

    def __init__(self) -> None:
        self.md5 = hashlib.md5(usedforsecurity=False)  # what PDEBench publishes
        self.sha256 = hashlib.sha256()
        self.bytes = 0

    def update(self, block: bytes) -> None:
        self.md5.update(block)
        self.sha256.update(block)
        self.bytes += len(block)

    def read(self, file: BinaryIO) -> None:
        """All that is left of a file."""
        while block := file.read(_BLOCK):
            self.update(block)


class PartialFile:
    """Bytes that are appended to `.<name>.partial`, and a JSON that says what they are the beginning of.

    Attributes:
        path: the file; a killed process leaves what it had written.
        checksums: of these bytes.
    """

    def __init__(self, destination: Path) -> None:
        self.path = destination.with_name(f".{destination.name}.partial")
        self.record = self.path.with_name(f"{self.path.name}.json")
        self.checksums = RunningChecksums()

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self.checksums.bytes

    def resume(self, usable: Callable[[Any], bool]) -> None:
        """Count what an earlier process left, if what it recorded of it is `usable`."""
        try:
            known = read_json(self.record)
        except (FileNotFoundError, IntegrityError):
            return
        if usable(known) and self.path.exists():
            with self.path.open("rb") as file:
                self.checksums.read(file)

    def begin(self, record: Any) -> None:
        """Throw the bytes away; the next ones are the beginning of this."""
        self.checksums = RunningChecksums()
        self.path.write_bytes(b"")
        write_json(self.record, record)

    def append(self, block: bytes) -> None:
        with self.path.open("ab") as file:
            file.write(block)
        self.checksums.update(block)

    def check_room(self, needed: int) -> None:
        """Raises PreflightError where the disk has fewer bytes free than needed."""
        free = shutil.disk_usage(self.path.parent).free
        if free < needed:
            raise PreflightError(
                f"{needed / 1e6:.1f} MB are needed, {free / 1e6:.1f} MB are free",
                where=str(self.path.parent),
                fix="free space (`ups cache gc --dry-run` shows what may go) or choose another directory",
            )

    def discard(self) -> None:
        """Throw the bytes away, and what they were."""
        self.checksums = RunningChecksums()
        self.path.unlink(missing_ok=True)
        self.record.unlink(missing_ok=True)


@contextmanager
def writing(destination: Path, deadline: Deadline) -> Iterator[None]:
    """Hold the kernel lock of a destination, which a killed holder frees; its directory is made if need be.

    Raises:
        StorageError: another process holds it until the deadline, or the system complains of a disk, also in here.
    """
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        # A soft lock, by the mere presence of a file, would outlive a killed holder.
        path, seconds = destination.with_name(f".{destination.name}.lock"), deadline.remaining()
        with FileLock(path, timeout=seconds, fallback_to_soft=False):
            yield
    except Timeout:
        raise StorageError(
            f"another process is fetching this file, for longer than {deadline.policy.deadline_seconds:g} s",
            where=str(destination),
            fix="wait for it, or end it; what it fetched is kept",
        ) from None
    except OSError as error:
        raise storage_error(error, destination) from error
