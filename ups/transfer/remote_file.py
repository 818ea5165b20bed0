"""A remote file to read here and there: Range requests of an object that must stay the same.

Every answer must be exactly the range asked for, of an object whose length and ETag never change, over a
connection whose end cannot be taken for a cut: there is no MD5 of a part.

Rejected: fsspec's HTTP files (an object that changes between two reads is not noticed, no bound in time);
h5py's ros3 driver (S3 only).
"""

import io
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar

import h5py

from ups.errors import DataError, IntegrityError, UpsError
from ups.transfer.address import ANOTHER_MIRROR, Address, parse_address
from ups.transfer.partial import disk, open_file
from ups.transfer.patience import PACE, Fault, Pace, Patience
from ups.transfer.transport import Reply, Validators, exchange

WHOLE = "download the whole file"

_BLOCK = 64 * 1024
_CACHED_BLOCKS = 256
_LARGEST_HEADER = 256 << 20

T = TypeVar("T")


def open_remote(
    address: str, *, deadline_seconds: float = 600, attempts: int = 8, pace: Pace = PACE
) -> io.RawIOBase:
    """A remote file to read here and there, e.g. `h5py.File(open_remote(address), "r")`; close it after.

    h5py holds its lock while it waits for the network: in a process whose other threads use h5py, take
    `read_hdf5`.

    Args:
        address: http://, https:// or file://.
        deadline_seconds: for all reads together.
        attempts: failures in a row of one read.
        pace: what is too slow, and how long to pause.

    Raises:
        DataError: there is no such file, or its server does not serve ranges.
        IntegrityError: the object changed between two reads (from this call's reads as well).
        StorageError: attempts or deadline are used up (from reads as well).
    """
    patience = Patience(deadline_seconds=deadline_seconds, attempts=attempts, pace=pace)
    return RemoteFile(source_of(parse_address(address), patience))


class Source(Protocol):
    """Bytes that stay the same: reading raises IntegrityError once they do not."""

    patience: Patience
    length: int
    validators: Validators

    def stream(self, first: int, last: int) -> Iterator[bytes]:
        """Bytes first to last, both included, in one attempt. Raises Fault."""
        ...


def source_of(address: Address, patience: Patience) -> Source:
    """The bytes behind an address; asks for one of them. Raises as `open_remote` does."""
    if address.path is not None:
        return _FileSource(address.path, patience)
    source = _HttpSource(address, patience)
    read(source, 0, 0)  # learns length and version, and that ranges are served
    return source


class _HttpSource:
    """An object behind an address; its length and validators are those of the first answer."""

    def __init__(self, address: Address, patience: Patience) -> None:
        self.address = address
        self.patience = patience
        self.length = -1  # not known yet
        self.validators = Validators(None, None)

    def __str__(self) -> str:
        return str(self.address)

    def stream(self, first: int, last: int) -> Iterator[bytes]:
        headers = {"Range": f"bytes={first}-{last}"}
        if self.length >= 0 and self.validators.if_range is not None:
            headers["If-Range"] = self.validators.if_range
        with exchange(self.address, self.patience, headers) as reply:
            if reply.status == 206:
                reply.check_content()
                self._check(reply, first, last)
            else:
                self._refuse(reply)
            missing = last - first + 1
            for block in reply.blocks():
                missing -= len(block)
                if missing < 0:
                    raise reply.lie("sends more bytes than it was asked for")
                yield block
        if missing:
            raise Fault(f"the connection ended {missing} bytes before the end of a range")

    def _check(self, reply: Reply, first: int, last: int) -> None:
        got = reply.content_range()
        if got.total is None:
            raise reply.lie("does not say how long the file is")
        if self.length < 0:
            self.length, self.validators = got.total, reply.validators
        if got.total != self.length or self.validators.differ(reply.validators):
            raise self._changed()
        if (got.first, got.last) != (first, last):
            raise reply.lie(f"sends bytes {got.first} to {got.last} instead of {first} to {last}")
        if not reply.delimited:
            raise reply.lie("sends a range whose end cannot be told from a cut")

    def _refuse(self, reply: Reply) -> None:
        if reply.status == 416:
            if self.length < 0:
                raise DataError("the file is empty", where=reply.where, fix="check the address")
            raise self._changed()
        reply.check_content()
        if self.validators.differ(reply.validators) or self.length not in (-1, reply.length):
            raise self._changed()
        raise DataError("the server does not serve parts of files", where=reply.where, fix=WHOLE)

    def _changed(self) -> IntegrityError:
        return IntegrityError(
            "the file changed on the server while it was read",
            where=str(self.address),
            fix="run the same command again; if that recurs, find out which version it should be",
        )


class _FileSource:
    """A file on a disk; its validators are its size and time of modification."""

    def __init__(self, path: Path, patience: Patience) -> None:
        self.path = path
        self.patience = patience
        with open_file(path) as file:
            self.length, self.modified = self._version(file)
        self.validators = Validators(None, str(self.modified))

    def __str__(self) -> str:
        return str(self.path)

    def stream(self, first: int, last: int) -> Iterator[bytes]:
        with open_file(self.path) as file:
            if self._version(file) != (self.length, self.modified):
                raise IntegrityError(
                    "the file changed while it was read",
                    where=str(self.path),
                    fix="run the same command again",
                )
            file.seek(first)
            missing = last - first + 1
            while missing:
                self.patience.check(str(self.path))
                with disk(self.path):
                    block = file.read(min(missing, _BLOCK))
                if not block:
                    raise Fault("the file ended")
                missing -= len(block)
                yield block

    @staticmethod
    def _version(file: BinaryIO) -> tuple[int, int]:
        status = os.fstat(file.fileno())
        return status.st_size, status.st_mtime_ns


def read(source: Source, first: int, last: int) -> bytes:
    """Bytes first to last, both included, of a source; tried again where it may help."""
    collected = bytearray()
    while True:
        try:
            for block in source.stream(first + len(collected), last):
                collected += block
            source.patience.progressed()
            return bytes(collected)
        except Fault as fault:
            source.patience.wait(fault, str(source))


class RemoteFile(io.RawIOBase):
    """A seekable, read-only binary file over ranges, with a cache of blocks of 64 KiB.

    For headers: h5py reads some dozens of small pieces close to each other. One read fetches all blocks that
    it lacks with one request, and the last 256 blocks are kept.
    """

    def __init__(self, source: Source) -> None:
        super().__init__()
        self.source = source
        self._position = 0
        self._blocks: OrderedDict[int, bytes] = OrderedDict()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.source.length}[whence]
        if origin + offset < 0:
            raise ValueError(f"position {origin + offset} is before the file")
        self._position = origin + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        stop = min(self._position + len(view), self.source.length)
        if stop <= self._position:
            return 0
        first, last = self._position // _BLOCK, (stop - 1) // _BLOCK
        here = self._get(first, last)
        joined = b"".join(here[number] for number in range(first, last + 1))
        view[: stop - self._position] = joined[self._position - first * _BLOCK : stop - first * _BLOCK]
        count, self._position = stop - self._position, stop
        return count

    def _get(self, first: int, last: int) -> dict[int, bytes]:
        """Blocks first to last."""
        missing = [number for number in range(first, last + 1) if number not in self._blocks]
        here = {n: self._blocks[n] for n in range(first, last + 1) if n in self._blocks}
        if missing:
            here |= self._fetch(missing[0], missing[-1])
        for number in here:
            self._blocks[number] = here[number]
            self._blocks.move_to_end(number)
        self._forget()
        return here

    def _fetch(self, first: int, last: int) -> dict[int, bytes]:
        """Blocks first to last, by one request."""
        begin, end = first * _BLOCK, min((last + 1) * _BLOCK, self.source.length)
        fetched = read(self.source, begin, end - 1)
        return {
            number: fetched[number * _BLOCK - begin : (number + 1) * _BLOCK - begin]
            for number in range(first, last + 1)
        }

    def _forget(self) -> None:
        while len(self._blocks) > _CACHED_BLOCKS:
            self._blocks.popitem(last=False)


class _Lacking(Exception):
    """A block is not here."""


class _Replayed(RemoteFile):
    """Asks for nothing while it is read: a read that lacks blocks fails, and says which."""

    _lacking: tuple[int, int] | None = None

    def _fetch(self, first: int, last: int) -> dict[int, bytes]:
        self._lacking = (first, last)
        raise _Lacking

    def supply(self) -> bool:
        """Fetch what the last attempt lacked, if anything; all that was ever fetched stays."""
        if self._lacking is None:
            return False
        self._blocks |= super()._fetch(*self._lacking)
        self._lacking = None
        if len(self._blocks) * _BLOCK > _LARGEST_HEADER:
            raise DataError(
                f"reading its header takes more than {_LARGEST_HEADER >> 20} MiB",
                where=str(self.source),
                fix=WHOLE,
            )
        return True

    def _forget(self) -> None:
        pass


def read_hdf5(source: Source, reader: Callable[[h5py.File], T]) -> T:
    """What `reader` makes of a remote HDF5 file; it is called again and again and must not mind.

    h5py holds a lock of its process while it reads, and every other thread that opens or drops an h5py object
    waits for that lock, be it in the garbage collector. So nothing is asked of the network in there: a read
    that lacks bytes fails, they are fetched outside, and `reader` starts anew. Three or four times are enough
    for PDEBench's files.

    Raises:
        DataError: HDF5 finds the file wrong, or its header is larger than 256 MiB.
        UpsError: what `reader` raises; what `open_remote` and its reads raise.
    """
    stream = _Replayed(source)
    while True:
        # What h5py makes of a failed read depends on where it happens, so any outcome may be due to one.
        try:
            with h5py.File(stream, "r") as file:
                result = reader(file)
        except (UpsError, _Lacking, OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
            if stream.supply():
                continue
            if isinstance(error, UpsError):
                raise
            raise DataError(
                f"cannot be read as HDF5: {error}",
                where=str(source),
                fix=f"check that the address is that of the file itself; or {ANOTHER_MIRROR}",
            ) from error
        if not stream.supply():
            return result
