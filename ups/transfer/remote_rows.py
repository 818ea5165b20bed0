"""Some rows of a remote HDF5 file, without the rest of it: megabytes instead of 8 GB.

PDEBench's arrays are contiguous and not compressed: row i of an array [n, ...] float32 is one piece of the
file, and its place follows from the header. So h5py reads the header through Range requests, the rows are
fetched by their byte ranges, and what is written is a small HDF5 file of the same layout, that every reader
of the big one can read. There is no MD5 of a part; what stands for it is said in `ups.transfer.remote_file`, and
the sha256 of each range is recorded.

The new file's arrays are allocated first and their bytes streamed into place: memory holds one block of 64 KiB,
the disk no second copy. Every 32 MiB the bytes are flushed and counted in a JSON beside the partial file, from
where a killed process goes on.

Rejected: reading the rows through h5py (one small read after the other, no resume, nothing to sum); kerchunk
(an index of chunks, for files that have some).
"""

import hashlib
import io
import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import h5py
import numpy as np
from numpy.typing import NDArray

from ups.artifacts.files import read_json, sync_directory, sync_file, write_json
from ups.errors import DataError, IntegrityError, StorageError
from ups.problems.problem import ORIGINAL_ROWS
from ups.transfer.address import ANOTHER_MIRROR, parse_address
from ups.transfer.download import Progress
from ups.transfer.partial import alone, check_room, disk, write_all
from ups.transfer.patience import PACE, Fault, Pace, Patience
from ups.transfer.remote_file import WHOLE, Source, read_hdf5, source_of

_CHECKPOINT_BYTES = 32 << 20
_LARGEST_COORDINATES = 1_000_000
_REHASH_BLOCK = 1 << 20


class Range(TypedDict):
    """One fetched piece: rows [start, stop) of an array, its place in the original, and its sha256."""

    key: str
    rows: list[int]
    offset: int
    bytes: int
    sha256: str


@dataclass(frozen=True, eq=False)
class FetchedRows:
    """A file with some rows of another.

    Attributes:
        path: the new file.
        rows: [n] numbers of its rows in the original, ascending.
        ranges: what was fetched, by key in the order given, then ascending.
        total_rows: of the original.
        etag: of the original, if its server gave one.
    """

    path: Path
    rows: NDArray[np.int64]
    ranges: list[Range]
    total_rows: int
    etag: str | None


def fetch_rows(
    address: str,
    keys: Sequence[str],
    rows: Sequence[tuple[int, int]],
    destination: Path,
    *,
    deadline_seconds: float = 6 * 3600,
    attempts: int = 8,
    pace: Pace = PACE,
    progress: Progress | None = None,
) -> FetchedRows:
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
        deadline_seconds: for everything, waiting for another process included.
        attempts: failures in a row, none of which got further than before.
        pace: what is too slow, and how long to pause.
        progress: called with the bytes of rows so far and in all, after every block.

    Raises:
        ConfigurationError: the address cannot be read.
        DataError: the file is absent, is no HDF5 file, is truncated, lacks a key, stores it in chunks or
            otherwise; or it has not the rows; or its server breaks the protocol or does not serve ranges.
        IntegrityError: the object changed while it was read.
        PreflightError: the disk has too little room; no row was fetched.
        StorageError: attempts or deadline are used up, or the disk failed.
    """
    parsed = parse_address(address)
    if not keys or len(set(keys)) != len(keys) or any("/" in key for key in keys):
        raise ValueError(f"keys must be distinct names of the root, and at least one, got {list(keys)}")
    wanted = _ordered(rows, str(parsed))
    patience = Patience(deadline_seconds=deadline_seconds, attempts=attempts, pace=pace)
    destination = destination.absolute()
    with alone(destination, patience):
        source = source_of(parsed, patience)
        with _read_header(source, keys) as header:
            header.check_rows(wanted, str(source))
            pieces = [array.piece(start, stop) for array in header.arrays for start, stop in wanted]
            numbers = np.concatenate([np.arange(start, stop, dtype=np.int64) for start, stop in wanted])
            plan = {
                "address": str(parsed),  # for people; what counts is the sum, which holds no secret
                "address_sha256": parsed.digest,
                "version": list(source.validators),
                "length": source.length,
                "pieces": [[piece.key, piece.start, piece.stop, piece.offset] for piece in pieces],
            }
            partial = _PartialRows(destination, plan)
            # Without any validator nothing would tell that the parts are of one object.
            taken_up = any(source.validators) and partial.take_up()
            check_room(destination.parent, sum(piece.bytes for piece in pieces) - partial.done)
            if not taken_up:
                partial.begin(header, numbers)
        sums = partial.fill(source, pieces, progress)
        partial.publish()
    return FetchedRows(
        path=destination,
        rows=numbers,
        ranges=[
            Range(key=p.key, rows=[p.start, p.stop], offset=p.offset, bytes=p.bytes, sha256=sha256)
            for p, sha256 in zip(pieces, sums, strict=True)
        ],
        total_rows=header.total_rows,
        etag=source.validators.etag,
    )


def _ordered(rows: Sequence[tuple[int, int]], where: str) -> list[tuple[int, int]]:
    """Ranges ascending; raises DataError where one is empty, reversed or negative, or two overlap."""
    if not rows:
        raise DataError("no rows are asked for", where=where, fix="ask for at least one range of rows")
    ordered = sorted((int(start), int(stop)) for start, stop in rows)
    fix = "give disjoint ranges [start, stop) with 0 <= start < stop"
    for start, stop in ordered:
        if not 0 <= start < stop:
            raise DataError(f"[{start}, {stop}) is no range of rows", where=where, fix=fix)
    for (start, stop), (after, end) in itertools.pairwise(ordered):
        if after < stop:
            raise DataError(f"rows [{start}, {stop}) and [{after}, {end}) overlap", where=where, fix=fix)
    return ordered


@dataclass(frozen=True)
class _Piece:
    """Rows [start, stop) of an array: `bytes` bytes of the file from `offset` on."""

    key: str
    start: int
    stop: int
    offset: int
    bytes: int


@dataclass(frozen=True)
class _Array:
    """A contiguous array of the file: its shape, and where its first row begins."""

    key: str
    shape: tuple[int, ...]
    offset: int

    def piece(self, start: int, stop: int) -> _Piece:
        row = 4 * math.prod(self.shape[1:])
        return _Piece(self.key, start, stop, self.offset + start * row, (stop - start) * row)


@dataclass(frozen=True)
class _Header:
    """All of the remote file but its rows.

    Attributes:
        arrays: places of the arrays.
        rest: an HDF5 file in memory with the coordinates and the attributes.
    """

    arrays: list[_Array]
    rest: h5py.File

    @property
    def total_rows(self) -> int:
        return self.arrays[0].shape[0]

    def check_rows(self, wanted: Sequence[tuple[int, int]], where: str) -> None:
        """Raises DataError where a range is beyond the end; `wanted` ascends."""
        if wanted[-1][1] > self.total_rows:
            raise DataError(
                f"has {self.total_rows} rows, and rows up to {wanted[-1][1]} are asked for",
                where=where,
                fix="ask for rows that it has",
            )


@contextmanager
def _read_header(source: Source, keys: Sequence[str]) -> Iterator[_Header]:
    """Raises DataError where the file is no HDF5 file, or has not the layout."""

    def read(file: h5py.File) -> _Header:
        arrays = [_array(file, key, source) for key in keys]
        rest = h5py.File(io.BytesIO(), "w")
        try:
            _copy_rest(file, rest, keys)
        except BaseException:
            rest.close()
            raise
        return _Header(arrays, rest)

    header = read_hdf5(source, read)
    with header.rest as rest:
        lengths = {array.key: array.shape[0] for array in header.arrays}
        if len(set(lengths.values())) != 1:
            raise DataError(f"the arrays differ in their rows: {lengths}", where=str(source), fix=WHOLE)
        if ORIGINAL_ROWS in rest or ORIGINAL_ROWS in keys:
            raise DataError(
                f"has a dataset {ORIGINAL_ROWS}: it holds some rows of another file already",
                where=str(source),
                fix="use the original file",
            )
        yield header


def _array(file: h5py.File, key: str, source: Source) -> _Array:
    """Check that an array's rows are pieces of the file."""
    where = f"{source}, dataset {key}"
    dataset = file.get(key)
    if not isinstance(dataset, h5py.Dataset):
        raise DataError("is missing", where=where, fix=f"the file has: {', '.join(sorted(file))}")
    if dataset.chunks is not None:
        raise DataError("is stored in chunks: its rows are no pieces of the file", where=where, fix=WHOLE)
    offset = dataset.id.get_offset()
    if offset is None or dataset.external or dataset.is_virtual or not dataset.ndim:
        raise DataError("is not stored as one piece of the file", where=where, fix=WHOLE)
    if dataset.dtype != np.dtype("<f4"):
        raise DataError(f"holds {dataset.dtype.str} instead of <f4 (float32)", where=where, fix=WHOLE)
    if offset + dataset.nbytes > source.length:
        raise DataError(
            f"ends at byte {offset + dataset.nbytes}, and the file has {source.length}: it is truncated",
            where=where,
            fix=ANOTHER_MIRROR,
        )
    return _Array(key, dataset.shape, offset)


def _copy_rest(file: h5py.File, rest: h5py.File, keys: Sequence[str]) -> None:
    for name in file:
        # A link to another file would lead to one on this machine.
        if name in keys or not isinstance(file.get(name, getlink=True), h5py.HardLink):
            continue
        dataset = file[name]
        if (
            isinstance(dataset, h5py.Dataset)
            and dataset.ndim == 1
            and dataset.shape[0] <= _LARGEST_COORDINATES
        ):
            file.copy(dataset, rest, name)
    _copy_attributes(file, rest)


def _copy_attributes(source: h5py.File, target: h5py.File) -> None:
    for name, value in source.attrs.items():
        target.attrs.create(name, value, dtype=source.attrs.get_id(name).dtype)


class _PartialRows:
    """The unfinished file: its arrays are allocated, and filled piece after piece.

    `done` bytes of the pieces, in their order, are in place; the record has no more than are on the disk.
    """

    def __init__(self, destination: Path, plan: dict[str, Any]) -> None:
        self.destination = destination
        self.path = destination.with_name(f".{destination.name}.partial")
        self.record = self.path.with_name(f"{self.path.name}.json")
        self.done = 0
        self._recorded = 0
        self._plan = plan

    def take_up(self) -> bool:
        """Whether an earlier process began this very file; what it fetched counts then."""
        try:
            known = read_json(self.record)
        except (FileNotFoundError, IntegrityError):
            return False
        if not isinstance(known, dict) or known.get("plan") != self._plan or not self.path.exists():
            return False
        self.done = self._recorded = int(known["done"])
        return True

    def begin(self, header: _Header, numbers: NDArray[np.int64]) -> None:
        """Make the file with everything but the rows, whose places are allocated."""
        with disk(self.path):
            self.record.unlink(missing_ok=True)
            self.path.unlink(missing_ok=True)
            with h5py.File(self.path, "x") as new:
                for array in header.arrays:
                    _allocate(new, array.key, (len(numbers), *array.shape[1:]))
                for name in header.rest:
                    header.rest.copy(name, new)
                _copy_attributes(header.rest, new)
                new[ORIGINAL_ROWS] = numbers
            sync_file(self.path)
        self._write_record()

    def fill(self, source: Source, pieces: Sequence[_Piece], progress: Progress | None) -> list[str]:
        """Fetch the pieces into their places; the sha256 of each."""
        with disk(self.path), h5py.File(self.path, "r") as new:
            places = {key: new[key].id.get_offset() for key in {piece.key for piece in pieces}}
        total, before = sum(piece.bytes for piece in pieces), 0
        sums = []
        try:
            for piece in pieces:
                sums.append(self._fill_piece(source, piece, places[piece.key], before, total, progress))
                places[piece.key] += piece.bytes
                before += piece.bytes
        except BaseException:
            with suppress(StorageError):  # what happened is the news
                self._write_record()
            raise
        return sums

    def _fill_piece(
        self, source: Source, piece: _Piece, place: int, before: int, total: int, progress: Progress | None
    ) -> str:
        """`place`: where the piece begins in this file; `before`: bytes of the pieces before it."""
        sha256 = hashlib.sha256()
        with disk(self.path):
            file = self.path.open("r+b", buffering=0)
        with file:
            filled = min(max(self.done - before, 0), piece.bytes)
            with disk(self.path):
                file.seek(place)
                for start in range(0, filled, _REHASH_BLOCK):
                    sha256.update(file.read(min(_REHASH_BLOCK, filled - start)))
            while filled < piece.bytes:
                attempted = filled
                try:
                    for block in source.stream(piece.offset + filled, piece.offset + piece.bytes - 1):
                        with disk(self.path):
                            write_all(file, block)
                        sha256.update(block)
                        filled += len(block)
                        self.done = before + filled
                        if self.done - self._recorded >= _CHECKPOINT_BYTES:
                            self._write_record()
                        if progress is not None:
                            progress(self.done, total)
                    source.patience.progressed()
                except Fault as fault:
                    if filled > attempted:
                        source.patience.progressed()
                    source.patience.wait(fault, str(source))
        return sha256.hexdigest()

    def publish(self) -> None:
        """Make the filled file the destination."""
        with disk(self.path):
            sync_file(self.path)
            self.path.replace(self.destination)
            self.record.unlink(missing_ok=True)
            sync_directory(self.destination.parent)

    def _write_record(self) -> None:
        with disk(self.path):
            sync_file(self.path)
        write_json(self.record, {"plan": self._plan, "done": self.done})
        self._recorded = self.done


def _allocate(file: h5py.File, key: str, shape: tuple[int, ...]) -> None:
    """A contiguous little-endian float32 array whose bytes have their place and no value yet."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    space = h5py.h5s.create_simple(shape)
    h5py.h5d.create(file.id, key.encode(), h5py.h5t.IEEE_F32LE, space, properties)
