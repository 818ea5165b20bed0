"""Chunks of a zarr array of trajectories, each a file that can be memory-mapped.

A chunk holds a fixed number of whole trajectories, float16, little endian, in C order, followed by its crc32c. That
is what zarr v3 writes with the codecs `bytes` and `crc32c` (tested against zarr's reader), so chunks are
written and mapped here without zarr, whose cost per chunk is Python's. A last chunk that is not full is
filled up with zeros, as zarr does: every file of an array has the same size, and one that is missing or has
another size is damage. To zarr itself a missing chunk is a chunk of zeros.

Chunks are mapped through `torch.from_file`, which keeps no file descriptor open; `numpy.memmap` keeps one per
chunk, and a large cache has more chunks than a process may open files.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import torch
from numpy.typing import NDArray

from ups.artifacts.files import publish, read_json, storage_error
from ups.errors import IntegrityError

DTYPE = np.dtype("<f2")
REBUILD = "run its configuration again: what is damaged is set aside and rebuilt"
"""What to do about a damaged cache."""

_SUM_BYTES = 4
_METADATA = "zarr.json"


@dataclass(frozen=True)
class ChunkLayout:
    """Where the values of one array lie.

    Attributes:
        directory: of the zarr array.
        shape: of the array, trajectories first.
        trajectories_per_chunk: at most shape[0].
    """

    directory: Path
    shape: tuple[int, ...]
    trajectories_per_chunk: int

    @property
    def chunk_count(self) -> int:
        return -(-self.shape[0] // self.trajectories_per_chunk)

    @property
    def chunk_shape(self) -> tuple[int, ...]:
        """Shape of every chunk, the last one filled up."""
        return (self.trajectories_per_chunk, *self.shape[1:])

    @property
    def chunk_bytes(self) -> int:
        """Size of every chunk file."""
        return int(np.prod(self.chunk_shape)) * DTYPE.itemsize + _SUM_BYTES

    def rows_of(self, chunk: int) -> slice:
        """Trajectories in a chunk."""
        first = chunk * self.trajectories_per_chunk
        return slice(first, min(self.shape[0], first + self.trajectories_per_chunk))

    def file(self, chunk: int) -> Path:
        """zarr's default chunk key: `c/<chunk>/0/.../0`."""
        return self.directory.joinpath("c", str(chunk), *("0" for _ in self.shape[1:]))

    def problem_of(self, chunk: int) -> str | None:
        """What is wrong with a chunk's file, from its size alone; None if nothing is."""
        try:
            size = self.file(chunk).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return "is missing"
        if size == self.chunk_bytes:
            return None
        return f"has {size} bytes, a chunk of this cache has {self.chunk_bytes}"


def read_layout(directory: Path) -> ChunkLayout:
    """The layout of an array, from its zarr metadata.

    Raises:
        IntegrityError: there is no such array, or its metadata describe anything but chunks.
    """
    metadata = read_metadata(directory)
    try:
        shape = tuple(int(length) for length in metadata["shape"])
        chunk = tuple(int(length) for length in metadata["chunk_grid"]["configuration"]["chunk_shape"])
        codecs = [(codec["name"], codec.get("configuration", {})) for codec in metadata["codecs"]]
        kind = (metadata["node_type"], metadata["data_type"], metadata["chunk_key_encoding"]["name"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise IntegrityError(
            f"is no metadata of an array: {error!r}", where=str(directory / _METADATA), fix=REBUILD
        ) from error
    whole_trajectories = (
        bool(shape) and 0 < chunk[0] <= shape[0] and chunk[1:] == shape[1:] and min(shape) > 0
    )
    if (
        not whole_trajectories
        or kind != ("array", "float16", "default")
        or codecs != [("bytes", {"endian": "little"}), ("crc32c", {})]
    ):
        raise IntegrityError(
            "does not describe chunks of whole trajectories in float16 with crc32c",
            where=str(directory / _METADATA),
            fix=REBUILD,
        )
    return ChunkLayout(directory, shape, chunk[0])


def read_metadata(directory: Path) -> dict[str, Any]:
    """`zarr.json` of a group or an array.

    Raises:
        IntegrityError: it is missing or damaged.
    """
    path = directory / _METADATA
    try:
        metadata = read_json(path)
    except (FileNotFoundError, NotADirectoryError):
        raise IntegrityError("is missing", where=str(path), fix=REBUILD) from None
    if not isinstance(metadata, dict):
        raise IntegrityError("is no zarr metadata", where=str(path), fix=REBUILD)
    return metadata


def write_chunk(layout: ChunkLayout, chunk: int, values: NDArray[np.float16]) -> str:
    """Write one chunk durably and return its crc32c, hexadecimal.

    A reader sees no file or all of it. What a killed writer leaves has the suffix `.partial`, and is replaced
    when the chunk is written again.

    Args:
        values: [rows of the chunk, ...].

    Raises:
        StorageError: the disk is full, read-only or failing.
    """
    rows = layout.rows_of(chunk)
    expected = (rows.stop - rows.start, *layout.shape[1:])
    if values.shape != expected or values.dtype != DTYPE:
        raise ValueError(f"chunk {chunk} holds float16 {expected}, got {values.dtype} {values.shape}")
    content = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
    padding = bytes(layout.chunk_bytes - _SUM_BYTES - content.nbytes)
    crc = google_crc32c.extend(google_crc32c.value(content), padding)
    path = layout.file(chunk)
    partial = path.with_name(f"{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(content.data)
            file.write(padding)
            file.write(crc.to_bytes(_SUM_BYTES, "little"))
        publish(partial, path)
    except OSError as error:
        raise storage_error(error, path) from error
    return f"{crc:08x}"


class ChunkedArray:
    """An array [n, ...] of float16 whose chunks are mapped when they are first read."""

    def __init__(self, layout: ChunkLayout, checksums: Sequence[str], *, verify: bool) -> None:
        """checksums: crc32c of every chunk, hexadecimal; verify: compare them at the first read of a chunk.

        Raises:
            IntegrityError: a chunk is missing or has another size.
        """
        if len(checksums) != layout.chunk_count:
            raise IntegrityError(
                f"has {layout.chunk_count} chunks and {len(checksums)} checksums",
                where=str(layout.directory),
                fix=REBUILD,
            )
        for chunk in range(layout.chunk_count):
            if problem := layout.problem_of(chunk):
                raise IntegrityError(problem, where=str(layout.file(chunk)), fix=REBUILD)
        self.layout = layout
        self.verify = verify
        self._checksums = tuple(checksums)
        self._mapped: dict[int, NDArray[np.float16]] = {}

    @property
    def shape(self) -> tuple[int, ...]:
        return self.layout.shape

    def mapped(self, chunk: int) -> NDArray[np.float16]:
        """The trajectories of a chunk, read-only, in the page cache and not in memory of this process.

        Raises:
            IntegrityError: its bytes are not those that were written (only with `verify`).
            StorageError: it cannot be mapped.
        """
        if chunk not in self._mapped:
            self._mapped[chunk] = self._map(chunk)
        return self._mapped[chunk]

    def read(self, rows: NDArray[np.int64], out: NDArray[np.float16]) -> None:
        """Copy trajectories `rows` [m] into `out` [m, ...]."""
        for chunk, places in self._by_chunk(rows):
            wanted = rows[places] - chunk * self.layout.trajectories_per_chunk
            source = self.mapped(chunk)
            first, count = int(wanted[0]), len(wanted)
            if (np.diff(wanted) == 1).all() and (np.diff(places) == 1).all():  # a plain copy
                out[places[0] : places[0] + count] = source[first : first + count]
            else:
                for place, row in zip(places.tolist(), wanted.tolist(), strict=True):
                    out[place] = source[row]

    def read_windows(
        self, rows: NDArray[np.int64], starts: NDArray[np.int64], out: NDArray[np.float16]
    ) -> None:
        """Copy frames starts[i] onwards of trajectory rows[i] into out[i]; out is [m, length, ...]."""
        length = out.shape[1]
        for place, (row, start) in enumerate(zip(rows.tolist(), starts.tolist(), strict=True)):
            chunk, within = divmod(row, self.layout.trajectories_per_chunk)
            out[place] = self.mapped(chunk)[within, start : start + length]

    def _by_chunk(self, rows: NDArray[np.int64]) -> list[tuple[int, NDArray[np.int64]]]:
        """The places in `rows`, by chunk."""
        chunks = rows // self.layout.trajectories_per_chunk
        order = np.argsort(chunks, kind="stable")
        present, begins = np.unique(chunks[order], return_index=True)
        return list(zip(present.tolist(), np.split(order, begins[1:]), strict=True)) if len(rows) else []

    def _map(self, chunk: int) -> NDArray[np.float16]:
        path, layout = self.layout.file(chunk), self.layout
        try:
            bytes_of_file = torch.from_file(str(path), size=layout.chunk_bytes, dtype=torch.uint8)
        except RuntimeError as error:  # torch's only one; it says which system call failed
            problem = layout.problem_of(chunk)
            if problem:
                raise IntegrityError(problem, where=str(path), fix=REBUILD) from error
            raise storage_error(OSError(str(error)), path) from error
        content = bytes_of_file.numpy()
        values, stored = content[:-_SUM_BYTES], int.from_bytes(content[-_SUM_BYTES:].tobytes(), "little")
        if self.verify:
            found = google_crc32c.value(values)
            if found != stored or f"{found:08x}" != self._checksums[chunk]:
                raise IntegrityError(
                    f"has crc32c {found:08x}, was written with {self._checksums[chunk]}",
                    where=str(path),
                    fix=REBUILD,
                )
        content.flags.writeable = False
        rows = layout.rows_of(chunk)
        whole = values.view(DTYPE).reshape(layout.chunk_shape)
        whole.flags.writeable = False
        return whole[: rows.stop - rows.start]
