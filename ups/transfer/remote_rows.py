"""Some rows of a remote HDF5 file, without the rest of it: megabytes instead of 8 GB.

PDEBench's arrays are contiguous and not compressed: row i of an array [n, ...] float32 is one piece of the file, at an offset that follows from the header. So h5py reads the header through Range requests, the rows are
fetched by their byte ranges, and what is written is a small HDF5 file of the same layout, that every reader
of the big one can read. There is no MD5 of a part: every answer must be exactly the range asked for, of an object
whose length and ETag never change.

Memory holds one row. The bytes are collected in a partial file, from where a killed process goes on, and then
copied into arrays: the disk holds the rows twice for that moment.

Rejected: reading the rows through h5py (one small read after the other, no resume); fsspec's HTTP files (an object
that changes between two reads is not noticed); h5py's ros3 driver (S3 only); kerchunk (an index of chunks, for
files that have some).
"""

import hashlib
import io
import itertools
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from ups.artifacts.files import publish
from ups.data.hdf5_attributes import read_attribute
from ups.errors import DataError, UpsError
from ups.problems.problem import ORIGINAL_ROWS
from ups.transfer.address import parse_address
from ups.transfer.download import Progress
from ups.transfer.partial import PartialFile, writing
from ups.transfer.retry import DEFAULT, Deadline, RetryPolicy, retry
from ups.transfer.source import Source

_WHOLE = "download the whole file"
_LARGEST_COORDINATES = 1_000_000
_HEADER_BLOCK = 1 << 20
_LARGEST_HEADER = 256 << 20


class _Array(NamedTuple):
    """A contiguous array of the file: its shape, where its first row begins, and bytes per row."""

    key: str
    shape: tuple[int, ...]
    offset: int
    row_bytes: int

    def range(self, start: int, stop: int) -> dict[str, Any]:
        offset, size = self.offset + start * self.row_bytes, (stop - start) * self.row_bytes
        return {"key": self.key, "rows": [start, stop], "offset": offset, "bytes": size}


def fetch_rows(
    address: str,
    keys: Sequence[str],
    rows: Sequence[tuple[int, int]],
    destination: Path,
    *,
    policy: RetryPolicy = DEFAULT,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write an HDF5 file with only some rows of a remote one.

    It holds the arrays `keys`, the root's other one-dimensional datasets of at most a million entries
    (coordinates) and its attributes unchanged, and `original-rows`. A file at the destination is replaced,
    whole or not at all. What a killed or failed call fetched is taken up by the next one with the same
    arguments.

    Args:
        address: http://, https:// or file://.
        keys: names of arrays [rows, ...] of equal length in the root: contiguous, little-endian float32.
        rows: ranges [start, stop), disjoint, in any order.
        destination: the file to make; its directory is made if need be.
        policy: deadline, attempts and pauses.
        progress: called with the bytes of rows so far and in all, after every block.

    Returns:
        What is known of it, as JSON: "rows" (their number), "total_rows" and "etag" of the original, and "ranges",
        by key in the order given, then ascending: key, rows [start, stop), offset and bytes in the original, sha256.

    Raises:
        ConfigurationError: the address cannot be read.
        DataError: the file is absent, is no HDF5 file, is truncated, has not the arrays or the rows; or its server
            breaks the protocol or does not serve ranges.
        IntegrityError: the object changed while it was read.
        PreflightError: the disk has too little room; no row was fetched.
        StorageError: attempts or deadline are used up, or the disk failed.
    """
    deadline = Deadline(policy)
    source = Source(parse_address(address), deadline)
    wanted = sorted(rows)
    overlap = any(after[0] < before[1] for before, after in itertools.pairwise(wanted))
    if not wanted or overlap or not all(0 <= start < stop for start, stop in wanted):
        raise _unfit(source, f"{wanted} are no disjoint ranges of rows [start, stop) with 0 <= start < stop")
    destination = destination.absolute()
    unfinished = destination.with_name(f".{destination.name}.unfinished")
    with writing(destination, deadline):
        try:
            arrays = _read_header(source, keys, unfinished)
            total_rows = arrays[0].shape[0]
            if wanted[-1][1] > total_rows:
                raise _unfit(source, f"has {total_rows} rows, and rows up to {wanted[-1][1]} are asked for")
            ranges = [array.range(start, stop) for array in arrays for start, stop in wanted]
            partial = PartialFile(destination)
            _fetch(source, ranges, partial, progress)
            numbers = np.concatenate([np.arange(start, stop, dtype=np.int64) for start, stop in wanted])
            _write_rows(unfinished, arrays, numbers, ranges, partial.path)
            publish(unfinished, destination)
            partial.discard()
        finally:
            unfinished.unlink(missing_ok=True)
    etag = source.version.etag
    return {"rows": len(numbers), "total_rows": total_rows, "etag": etag, "ranges": ranges}


def _read(source: Source, first: int, stop: int, take: Callable[[bytes], object]) -> None:
    """Bytes [first, stop), tried again where it may help."""
    position = first

    def count(block: bytes) -> None:
        nonlocal position
        take(block)
        position += len(block)

    def attempt() -> None:
        source.receive(position, stop, count, lambda: None)

    retry(attempt, lambda: position, source.deadline, str(source))


def _fetch(
    source: Source, ranges: list[dict[str, Any]], partial: PartialFile, progress: Progress | None
) -> None:
    """Append the bytes of the ranges, one after the other, to what is here of them."""
    version = source.version
    plan = {
        "address": str(source),  # for people; what counts is the sum, which holds no secret
        "address_sha256": source.address.digest,
        "version": list(version),
        "ranges": ranges,
    }
    # Without any validator nothing would tell that the parts are of one object.
    provable = version.etag is not None or version.last_modified is not None
    total = sum(piece["bytes"] for piece in ranges)
    partial.resume(lambda known: provable and known == plan)
    partial.check_room(2 * total - partial.size)
    if not partial.size:
        partial.begin(plan)

    def take(block: bytes) -> None:
        partial.append(block)
        if progress is not None:
            progress(partial.size, total)

    end = 0  # of a range, in the partial file
    for piece in ranges:
        end += piece["bytes"]
        missing, stop = end - partial.size, piece["offset"] + piece["bytes"]
        if missing > 0:
            _read(source, stop - missing, stop, take)


def _write_rows(
    path: Path, arrays: list[_Array], numbers: NDArray[np.int64], ranges: list[dict[str, Any]], rows: Path
) -> None:
    """Add the arrays, whose bytes follow each other in the file `rows`, to the HDF5 file `path`; take their sums."""
    with rows.open("rb") as file, h5py.File(path, "r+") as new:
        new[ORIGINAL_ROWS] = numbers
        for array in arrays:
            dataset, row = new.create_dataset(array.key, (len(numbers), *array.shape[1:]), "<f4"), 0
            for piece in (piece for piece in ranges if piece["key"] == array.key):
                sha256 = hashlib.sha256()
                for _ in range(*piece["rows"]):
                    block = file.read(array.row_bytes)
                    sha256.update(block)
                    dataset[row] = np.frombuffer(block, "<f4").reshape(array.shape[1:])
                    row += 1
                piece["sha256"] = sha256.hexdigest()


class _Header(io.FileIO):
    """As long as the remote file, in memory, with those of its blocks that were asked for so far.

    h5py holds a lock of its process while it reads, and every other thread that opens or drops an h5py object
    waits for that lock, be it in the garbage collector. So nothing is asked of the network in there: a read
    of what is not here fails, `supply` fetches it outside, and the reader starts anew. Three or four times are
    enough for PDEBench's files.
    """

    def __init__(self, source: Source, length: int) -> None:
        super().__init__(os.memfd_create("header"), "r+")
        self.truncate(length)
        self._source, self._length = source, length
        self._here: set[int] = set()
        self._missing: set[int] = set()

    def readinto(self, buffer: Any, /) -> int:
        first, stop = self.tell(), min(self.tell() + len(buffer), self._length)
        self._missing = set(range(first // _HEADER_BLOCK, -(-stop // _HEADER_BLOCK))) - self._here
        if self._missing:
            raise OSError("not here yet")
        return super().readinto(buffer)

    def supply(self) -> bool:
        """Fetch what the last read lacked, if anything."""
        missing, self._missing = self._missing, set()
        self._here |= missing
        if len(self._here) * _HEADER_BLOCK > _LARGEST_HEADER:
            raise _unfit(self._source, "its header is too large")
        for block in sorted(missing):
            first = self.seek(block * _HEADER_BLOCK)
            _read(self._source, first, min(first + _HEADER_BLOCK, self._length), self.write)
        return bool(missing)


def _read_header(source: Source, keys: Sequence[str], path: Path) -> list[_Array]:
    """The arrays' places; writes all of the file but its arrays to `path`."""
    _read(source, 0, 1, lambda block: None)  # learns the version, and that ranges are served
    length = source.version.length
    if length is None:
        raise _unfit(source, "its server does not say how long it is")
    with _Header(source, length) as header:
        while True:
            failure, arrays, rest = None, [], io.BytesIO()
            try:
                with h5py.File(header, "r") as file, h5py.File(rest, "w") as new:
                    arrays = [_array(file, key, source, length) for key in keys]
                    _copy_rest(file, new, keys, source, header)
            except Exception as error:
                failure = error
            # What h5py makes of a failed read depends on where it happens, so any outcome may be due to one.
            if header.supply():
                continue
            if failure is None:
                path.write_bytes(rest.getvalue())
                break
            if isinstance(failure, UpsError):
                raise failure
            raise _unfit(source, f"cannot be read as HDF5: {failure}") from failure
    if len({array.shape[0] for array in arrays}) != 1:
        raise _unfit(source, "the arrays differ in their rows")
    return arrays


def _array(file: h5py.File, key: str, source: Source, length: int) -> _Array:
    """Check that an array's rows are pieces of the file."""
    dataset = file.get(key)
    if not isinstance(dataset, h5py.Dataset):
        raise _unfit(source, f"there is no array {key}; it has: {', '.join(sorted(file))}")
    offset = None if dataset.chunks or dataset.external or dataset.is_virtual else dataset.id.get_offset()
    if offset is None or not dataset.ndim or dataset.dtype != np.dtype("<f4"):
        raise _unfit(
            source,
            f"{key} is not stored as one piece of little-endian float32 (its type is {dataset.dtype}, its chunks are "
            f"{dataset.chunks}): its rows are no pieces of the file",
        )
    if offset + dataset.nbytes > length:
        raise _unfit(
            source, f"{key} ends at byte {offset + dataset.nbytes} of {length}: the file is truncated"
        )
    return _Array(key, dataset.shape, offset, 4 * math.prod(dataset.shape[1:]))


def _unfit(source: Source, what: str) -> DataError:
    return DataError(what, where=str(source), fix=f"check the address; or {_WHOLE}")


def _copy_rest(
    file: h5py.File, new: h5py.File, keys: Sequence[str], source: Source, header: io.RawIOBase
) -> None:
    """Coordinates and attributes. Raises DataError where these are rows of another file already."""
    if ORIGINAL_ROWS in file:
        raise _unfit(source, f"has a dataset {ORIGINAL_ROWS}: it holds some rows of another file already")
    for name in file:
        # A link to another file would lead to one on this machine.
        if name in keys or not isinstance(file.get(name, getlink=True), h5py.HardLink):
            continue
        dataset = file[name]
        if isinstance(dataset, h5py.Dataset) and dataset.ndim == 1 and len(dataset) <= _LARGEST_COORDINATES:
            file.copy(dataset, new, name, without_attrs=True)
            _copy_attributes(dataset, new[name], header)
    _copy_attributes(file, new, header)


def _copy_attributes(owner: h5py.HLObject, copy: h5py.HLObject, header: io.RawIOBase) -> None:
    for name in owner.attrs:
        value = read_attribute(owner, name, header)
        copy.attrs.create(name, value, dtype=owner.attrs.get_id(name).dtype)
