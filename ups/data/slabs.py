"""Arrays of trajectories in slab files: chunks of a zarr array that can be memory-mapped.

A slab is a fixed number of whole trajectories, float16, little endian, in C order, followed by its crc32c. That
is exactly a chunk of a zarr v3 array with the codecs `bytes` and `crc32c` (tested against zarr's reader), so a
slab is written and mapped here without zarr, whose cost per chunk is Python's. A last slab that is not full is
filled up with zeros, as zarr does: every file of an array has the same size, and one that is missing or has
another size is damage. To zarr itself a missing chunk is a chunk of zeros.

Slabs are mapped through `torch.from_file`, which keeps no file descriptor open; `numpy.memmap` keeps one per
slab, and a large cache has more slabs than a process may open files.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import torch
from numpy.typing import NDArray

from ups.artifacts.files import read_json, storage_error, sync_directory
from ups.errors import IntegrityError

DTYPE = np.dtype("<f2")
REBUILD = "run its configuration again: what is damaged is set aside and rebuilt"
"""What to do about a damaged cache."""

_SUM_BYTES = 4
_METADATA = "zarr.json"


@dataclass(frozen=True)
class SlabLayout:
    """Where the values of one array lie.

    Attributes:
        directory: of the zarr array.
        shape: of the array, trajectories first.
        slab: trajectories per file, at most shape[0].
    """

    directory: Path
    shape: tuple[int, ...]
    slab: int

    @property
    def slabs(self) -> int:
        return -(-self.shape[0] // self.slab)

    @property
    def slab_shape(self) -> tuple[int, ...]:
        """Shape of every slab, the last one filled up."""
        return (self.slab, *self.shape[1:])

    @property
    def slab_bytes(self) -> int:
        """Size of every slab file."""
        return int(np.prod(self.slab_shape)) * DTYPE.itemsize + _SUM_BYTES

    def rows_of(self, slab: int) -> slice:
        """Trajectories in a slab."""
        return slice(slab * self.slab, min(self.shape[0], (slab + 1) * self.slab))

    def file(self, slab: int) -> Path:
        """zarr's default chunk key: `c/<slab>/0/.../0`."""
        return self.directory.joinpath("c", str(slab), *("0" for _ in self.shape[1:]))

    def problem_of(self, slab: int) -> str | None:
        """What is wrong with a slab's file, from its size alone; None if nothing is."""
        try:
            size = self.file(slab).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return "is missing"
        if size == self.slab_bytes:
            return None
        return f"has {size} bytes, a slab of this cache has {self.slab_bytes}"


def read_layout(directory: Path) -> SlabLayout:
    """The layout of an array, from its zarr metadata.

    Raises:
        IntegrityError: there is no such array, or its metadata describe anything but slabs.
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
    slabbed = bool(shape) and 0 < chunk[0] <= shape[0] and chunk[1:] == shape[1:] and min(shape) > 0
    if (
        not slabbed
        or kind != ("array", "float16", "default")
        or codecs != [("bytes", {"endian": "little"}), ("crc32c", {})]
    ):
        raise IntegrityError(
            "does not describe slabs of whole trajectories in float16 with crc32c",
            where=str(directory / _METADATA),
            fix=REBUILD,
        )
    return SlabLayout(directory, shape, chunk[0])


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


def write_slab(layout: SlabLayout, slab: int, values: NDArray[np.float16]) -> str:
    """Write one slab durably and return its crc32c, hexadecimal.

    A reader sees no file or all of it. What a killed writer leaves has the suffix `.partial`, and is replaced
    when the slab is written again.

    Args:
        values: [rows of the slab, ...].

    Raises:
        StorageError: the disk is full, read-only or failing.
    """
    rows = layout.rows_of(slab)
    expected = (rows.stop - rows.start, *layout.shape[1:])
    if values.shape != expected or values.dtype != DTYPE:
        raise ValueError(f"slab {slab} holds float16 {expected}, got {values.dtype} {values.shape}")
    content = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
    padding = bytes(layout.slab_bytes - _SUM_BYTES - content.nbytes)
    crc = google_crc32c.extend(google_crc32c.value(content), padding)
    path = layout.file(slab)
    partial = path.with_name(f"{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(content.data)
            file.write(padding)
            file.write(crc.to_bytes(_SUM_BYTES, "little"))
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
        sync_directory(path.parent)
    except OSError as error:
        raise storage_error(error, path) from error
    return f"{crc:08x}"


class SlabArray:
    """An array [n, ...] of float16 whose slabs are mapped when they are first read."""

    def __init__(self, layout: SlabLayout, checksums: Sequence[str], *, verify: bool) -> None:
        """checksums: crc32c of every slab, hexadecimal; verify: compare them at the first read of a slab.

        Raises:
            IntegrityError: a slab is missing or has another size.
        """
        if len(checksums) != layout.slabs:
            raise IntegrityError(
                f"has {layout.slabs} slabs and {len(checksums)} checksums",
                where=str(layout.directory),
                fix=REBUILD,
            )
        for slab in range(layout.slabs):
            if problem := layout.problem_of(slab):
                raise IntegrityError(problem, where=str(layout.file(slab)), fix=REBUILD)
        self.layout = layout
        self.verify = verify
        self._checksums = tuple(checksums)
        self._mapped: dict[int, NDArray[np.float16]] = {}

    @property
    def shape(self) -> tuple[int, ...]:
        return self.layout.shape

    def mapped(self, slab: int) -> NDArray[np.float16]:
        """The trajectories of a slab, read-only, in the page cache and not in memory of this process.

        Raises:
            IntegrityError: its bytes are not those that were written (only with `verify`).
            StorageError: it cannot be mapped.
        """
        if slab not in self._mapped:
            self._mapped[slab] = self._map(slab)
        return self._mapped[slab]

    def read(self, rows: NDArray[np.int64], out: NDArray[np.float16]) -> None:
        """Copy trajectories `rows` [m] into `out` [m, ...]."""
        for slab, places in self._by_slab(rows):
            wanted = rows[places] - slab * self.layout.slab
            source = self.mapped(slab)
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
            slab, within = divmod(row, self.layout.slab)
            out[place] = self.mapped(slab)[within, start : start + length]

    def _by_slab(self, rows: NDArray[np.int64]) -> list[tuple[int, NDArray[np.int64]]]:
        """The places in `rows`, by slab."""
        slabs = rows // self.layout.slab
        order = np.argsort(slabs, kind="stable")
        present, begins = np.unique(slabs[order], return_index=True)
        return list(zip(present.tolist(), np.split(order, begins[1:]), strict=True)) if len(rows) else []

    def _map(self, slab: int) -> NDArray[np.float16]:
        path, layout = self.layout.file(slab), self.layout
        try:
            bytes_of_file = torch.from_file(str(path), size=layout.slab_bytes, dtype=torch.uint8)
        except RuntimeError as error:  # torch's only one; it says which system call failed
            problem = layout.problem_of(slab)
            if problem:
                raise IntegrityError(problem, where=str(path), fix=REBUILD) from error
            raise storage_error(OSError(str(error)), path) from error
        content = bytes_of_file.numpy()
        values, stored = content[:-_SUM_BYTES], int.from_bytes(content[-_SUM_BYTES:].tobytes(), "little")
        if self.verify:
            found = google_crc32c.value(values)
            if found != stored or f"{found:08x}" != self._checksums[slab]:
                raise IntegrityError(
                    f"has crc32c {found:08x}, was written with {self._checksums[slab]}",
                    where=str(path),
                    fix=REBUILD,
                )
        content.flags.writeable = False
        rows = layout.rows_of(slab)
        whole = values.view(DTYPE).reshape(layout.slab_shape)
        whole.flags.writeable = False
        return whole[: rows.stop - rows.start]
