"""Files in the making: who may make them, whether they fit, and what they are the beginning of.

`.<name>.lock`, `.<name>.partial` and `.<name>.partial.json` lie beside the destination, so that the last step is
a rename on one disk. The lock file stays: removing it would split those who wait for it.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

from filelock import FileLock, Timeout

from ups.artifacts.files import read_json, storage_error, sync_directory, write_json
from ups.errors import ConfigurationError, DataError, IntegrityError, PreflightError, StorageError
from ups.transfer.address import ANOTHER_MIRROR, Address
from ups.transfer.patience import Patience
from ups.transfer.transport import Validators

_BLOCK = 1 << 20
_HEAD = 64  # bytes kept for a signature
_RECORD = {"address", "address_sha256", "etag", "last_modified", "total"}


@contextmanager
def alone(destination: Path, patience: Patience) -> Iterator[None]:
    """Hold the kernel lock of a destination, which a killed holder frees.

    Raises:
        StorageError: another process holds it until the deadline, or the directory cannot be written.
    """
    path = destination.with_name(f".{destination.name}.lock")
    lock = FileLock(path)
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=patience.remaining())
    except Timeout:
        raise StorageError(
            f"another process is fetching this file, for longer than {patience.deadline_seconds:g} s",
            where=str(destination),
            fix="wait for it, or end it; what it fetched is kept",
        ) from None
    except OSError as error:
        raise storage_error(error, path) from error
    try:
        yield
    finally:
        lock.release()


def check_room(path: Path, needed: int) -> None:
    """Raises PreflightError where a directory's disk has fewer bytes free than needed."""
    free = shutil.disk_usage(path).free
    if free < needed:
        raise PreflightError(
            f"{needed / 1e6:.1f} MB are needed, {free / 1e6:.1f} MB are free",
            where=str(path),
            fix="free space (`ups cache gc --dry-run` shows what may go) or choose another directory",
        )


def open_file(path: Path) -> BinaryIO:
    """Open a named file for reading.

    Raises:
        DataError: it is absent, or no regular file.
        StorageError: it cannot be opened.
    """
    fix = "check the path in the address"
    if not path.exists():
        raise DataError("there is no such file", where=str(path), fix=fix)
    if not path.is_file():
        raise DataError("is not a regular file", where=str(path), fix=fix)
    with disk(path):
        return path.open("rb")


def read_block(file: BinaryIO, path: Path) -> bytes:
    """The next mebibyte of a file; empty at its end. Raises StorageError."""
    with disk(path):
        return file.read(_BLOCK)


@contextmanager
def disk(path: Path) -> Iterator[None]:
    """Reading or writing `path`: what the system complains of becomes a StorageError."""
    try:
        yield
    except OSError as error:
        raise storage_error(error, path) from error


@dataclass(frozen=True)
class Downloaded:
    """A whole file, checked. Sums are hexadecimal."""

    path: Path
    bytes: int
    md5: str
    sha256: str


@dataclass(frozen=True)
class Wanted:
    """What is known of the file beforehand.

    Raises:
        ConfigurationError: `md5` is no MD5; better said now than after 8 GB.
    """

    md5: str | None
    size: int | None
    signature: bytes | None

    def __post_init__(self) -> None:
        if self.md5 is not None and not re.fullmatch("[0-9a-f]{32}", self.md5):
            raise ConfigurationError(
                f"{self.md5!r} is no MD5", where="md5", fix="give 32 hexadecimal digits, or none"
            )
        if len(self.signature or b"") > _HEAD:
            raise ValueError(f"a signature has at most {_HEAD} bytes, got {self.signature!r}")

    def check_size(self, total: int | None, where: str) -> None:
        """Raises IntegrityError where a length is not the expected one."""
        if None not in (total, self.size) and total != self.size:
            raise IntegrityError(
                f"has {total} bytes instead of {self.size}",
                where=where,
                fix=f"this is another file, or another version of it: check address and size; or {ANOTHER_MIRROR}",
            )


class Sums:
    """MD5 and sha256 of the same bytes, and the first of these bytes."""

    def __init__(self) -> None:
        self.md5 = hashlib.md5(usedforsecurity=False)  # what PDEBench publishes
        self.sha256 = hashlib.sha256()
        self.head = b""

    def update(self, block: bytes) -> None:
        self.md5.update(block)
        self.sha256.update(block)
        if len(self.head) < _HEAD:
            self.head += block[: _HEAD - len(self.head)]


class PartialFile:
    """The unfinished file: its bytes, their sums, and what they are the beginning of."""

    def __init__(self, destination: Path, source: Address, wanted: Wanted) -> None:
        self.destination = destination
        self.source = source
        self.wanted = wanted
        self.path = destination.with_name(f".{destination.name}.partial")
        self.record = self.path.with_name(f"{self.path.name}.json")
        self.bytes = 0
        self.total = wanted.size
        self.validators = Validators(None, None)
        self.sums = Sums()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with disk(self.path):
            # Unbuffered: what was written is what is counted, and what a killed process leaves.
            self._file = self._stack.enter_context(self.path.open("a+b", buffering=0))
        try:
            self._take_up()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        if not self.bytes:
            with disk(self.path):
                self.path.unlink(missing_ok=True)
                self.record.unlink(missing_ok=True)

    @property
    def complete(self) -> bool:
        return self.total is not None and self.bytes == self.total

    def _take_up(self) -> None:
        """Go on with what an earlier process left, if it is of this object."""
        try:
            known = read_json(self.record)
        except (FileNotFoundError, IntegrityError):
            return self.forget()
        if not isinstance(known, dict) or set(known) != _RECORD:
            return self.forget()
        validators, total = Validators(known["etag"], known["last_modified"]), known["total"]
        # Without an MD5 nothing would prove afterwards that the parts are of one object.
        provable = self.wanted.md5 is not None or validators.if_range is not None
        other = None not in (total, self.wanted.size) and total != self.wanted.size
        if known["address_sha256"] != self.source.digest or other or not provable:
            return self.forget()
        with disk(self.path):
            self._file.seek(0)
            while block := self._file.read(_BLOCK):
                self.sums.update(block)
                self.bytes += len(block)
        self.validators, self.total = validators, total if total is not None else self.wanted.size
        if self.total is not None and self.bytes > self.total:
            return self.forget()
        return None

    def restart(self, validators: Validators, total: int | None) -> None:
        """Throw the bytes away; the next ones are the beginning of this object."""
        with disk(self.path):
            self._file.truncate(0)
        self.bytes, self.sums = 0, Sums()
        self.validators, self.total = validators, total
        write_json(
            self.record,
            {
                "address": str(self.source),  # for people; what counts is the sum, which holds no secret
                "address_sha256": self.source.digest,
                "etag": validators.etag,
                "last_modified": validators.last_modified,
                "total": total,
            },
        )

    def forget(self) -> None:
        """Throw the bytes away, and what they were."""
        self.restart(Validators(None, None), self.wanted.size)

    def append(self, block: bytes) -> None:
        """Write a block.

        Raises:
            DataError: the object is longer than announced, or does not begin as it must; the bytes are gone.
            StorageError: the disk failed.
        """
        if self.total is not None and self.bytes + len(block) > self.total:
            self.forget()
            raise DataError(
                f"the server sends more than the {self.total} bytes it announced",
                where=str(self.source),
                fix=ANOTHER_MIRROR,
            )
        with disk(self.path):
            write_all(self._file, block)
        self.sums.update(block)
        self.bytes += len(block)
        self._check_signature(whole=False)

    def _check_signature(self, *, whole: bool) -> None:
        signature = self.wanted.signature or b""
        head = self.sums.head[: len(signature)]
        if not signature.startswith(head) or (whole and head != signature):
            self.forget()
            raise DataError(
                f"the file begins with {head!r} and must begin with {signature!r}",
                where=str(self.source),
                fix=f"check that the address is that of the file itself; or {ANOTHER_MIRROR}",
            )

    def right(self) -> bool:
        """Whether the whole file has the MD5 that it must have."""
        return self.wanted.md5 in (None, self.sums.md5.hexdigest())

    def publish(self) -> Downloaded:
        """Make the whole, right file the destination."""
        assert self.complete
        self._check_signature(whole=True)
        with disk(self.path):
            os.fsync(self._file.fileno())
            self.path.rename(self.destination)
            self.record.unlink(missing_ok=True)
            sync_directory(self.destination.parent)
        return Downloaded(
            self.destination, self.bytes, self.sums.md5.hexdigest(), self.sums.sha256.hexdigest()
        )


def write_all(file: Any, block: bytes) -> None:
    """Write to an unbuffered file, which may take less than it is given."""
    view = memoryview(block)
    while view:
        view = view[file.write(view) :]
