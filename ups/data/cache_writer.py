"""Writing the cache: chunk by chunk, by any number of processes, in any order, and killed at any time.

The bytes of a chunk go to the disk as they are, in zarr's chunk layout, and not through zarr: that takes 1.0 to 1.3
times as long (the disk's flush is most of it), needs the metadata first, and leaves behind files of arbitrary names
when it is killed. zarr makes the metadata, which describe the same bytes.

A chunk counts when all its arrays are on the disk and its record says so: `chunks/<problem>/<chunk>.json` in the
work directory, with its sums. What a killed process left of another chunk is written over. The metadata come
last. So the finished directory is the same, byte for byte, however often and by however many ranks it was built.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BytesCodec, Crc32cCodec
from zarr.storage import MemoryStore

from ups.artifacts.files import read_json, write_bytes, write_json
from ups.data.cache import FORMAT, GROUP, LATENTS, TIME, attributes_sum
from ups.data.half import rounded_to_half
from ups.data.zarr_chunks import ChunkLayout, write_chunk

Coordinates = Mapping[str, NDArray[np.float64]]
"""Times of the frames and points of each space axis, by the axis."""


@dataclass
class RoundTrip:
    """Error of storing as float16: squared error and squared values, summed, and the largest error."""

    squared_error: float = 0.0
    squared_value: float = 0.0
    largest: float = 0.0

    def add(self, exact: NDArray[np.float32], stored: NDArray[np.float16]) -> None:
        """Trajectories [n, ...], one at a time: they stay in the processor's cache."""
        for one_exact, one_stored in zip(exact, stored, strict=True):
            error = one_stored.astype(np.float32) - one_exact  # exact: the two are within half a float16 unit
            self.squared_error += float(np.square(error, dtype=np.float64).sum())
            self.squared_value += float(np.square(one_exact, dtype=np.float64).sum())
            self.largest = max(self.largest, float(np.abs(error).max(initial=0)))

    def join(self, other: "RoundTrip") -> None:
        self.squared_error += other.squared_error
        self.squared_value += other.squared_value
        self.largest = max(self.largest, other.largest)

    def to_json(self) -> dict[str, float]:
        relative = (self.squared_error / self.squared_value) ** 0.5 if self.squared_value else 0.0
        return {"relative_l2": relative, "largest": self.largest}


@dataclass(frozen=True)
class ArrayShapes:
    """Shapes of one problem's arrays.

    Attributes:
        trajectories, frames: of all arrays.
        latent: (K, d).
        grid: points per space axis.
        axes: names of the space axes.
        names: of the fields.
    """

    trajectories: int
    frames: int
    latent: tuple[int, int]
    grid: tuple[int, ...]
    axes: tuple[str, ...]
    names: tuple[str, ...]

    def arrays(self) -> dict[str, tuple[tuple[int, ...], tuple[str, ...]]]:
        """Shape and names of the axes of each array."""
        extent, shared = (self.trajectories, self.frames), ("trajectory", TIME)
        fields = ((*extent, *self.grid), (*shared, *self.axes))
        return {LATENTS: ((*extent, *self.latent), (*shared, "token", "channel"))} | dict.fromkeys(
            self.names, fields
        )


@dataclass(frozen=True)
class Piece:
    """One chunk of each array of one problem: what is read, encoded and written at once."""

    problem: str
    chunk: int
    rows: slice

    @property
    def trajectories(self) -> int:
        return self.rows.stop - self.rows.start


class CacheWriter:
    """Writes `<output>/cache.zarr`; remembers in `<work>/chunks` what is done."""

    def __init__(
        self, output: Path, work: Path, problems: Mapping[str, ArrayShapes], *, trajectories_per_chunk: int
    ) -> None:
        """A problem with fewer trajectories has one chunk of its own length."""
        self.path = output / GROUP
        self.records = work / "chunks"
        self.problems = dict(problems)
        self.trajectories_per_chunk = trajectories_per_chunk
        self.layouts = {
            problem: {
                name: ChunkLayout(self.path / problem / name, shape, min(trajectories_per_chunk, shape[0]))
                for name, (shape, _) in shapes.arrays().items()
            }
            for problem, shapes in problems.items()
        }

    def pieces(self) -> list[Piece]:
        """All chunks of all problems, in order."""
        return [
            Piece(problem, chunk, arrays[LATENTS].rows_of(chunk))
            for problem, arrays in self.layouts.items()
            for chunk in range(arrays[LATENTS].chunk_count)
        ]

    def missing(self) -> list[Piece]:
        """Chunks that are not written. A record without its files is none: files may be lost with the power."""

        def done(piece: Piece) -> bool:
            return self._record(piece).exists() and not any(
                layout.problem_of(piece.chunk) for layout in self.layouts[piece.problem].values()
            )

        return [piece for piece in self.pieces() if not done(piece)]

    def write(self, piece: Piece, latents: NDArray[np.float32], fields: NDArray[np.float32]) -> None:
        """Latents [n, t, K, d] and physical fields [n, t, *grid, C] of a chunk.

        Raises:
            DataError: a value does not fit float16.
            StorageError: the disk is full, read-only or failing.
        """
        exact = {LATENTS: latents} | {
            name: fields[..., channel] for channel, name in enumerate(self.problems[piece.problem].names)
        }
        record = {}
        for name, values in exact.items():
            stored = rounded_to_half(
                values, f"{piece.problem}/{name}, trajectories {piece.rows.start} to {piece.rows.stop - 1}"
            )
            error = RoundTrip()
            error.add(values, stored)
            crc = write_chunk(self.layouts[piece.problem][name], piece.chunk, stored)
            record[name] = {"crc32c": crc} | vars(error)
        write_json(self._record(piece), record)

    def finish(
        self,
        attributes: Mapping[str, dict[str, Any]],
        coordinates: Mapping[str, Coordinates],
        about: dict[str, Any],
    ) -> dict[str, Any]:
        """Write coordinates and metadata, after all chunks, and return the error of storing per problem and array.

        Args:
            attributes: of each problem's group.
            coordinates: of each problem.
            about: attributes of the root, also given to each group.
        """
        errors, complete = {}, {}
        for problem, arrays in self.layouts.items():
            records = [read_json(self._record(piece)) for piece in self.pieces() if piece.problem == problem]
            checksums = {name: [record[name].pop("crc32c") for record in records] for name in arrays}
            complete[problem] = attributes[problem] | {"stored": True, "crc32c": checksums}
            errors[problem] = {}
            for name in arrays:
                total = RoundTrip()
                for record in records:
                    total.join(RoundTrip(**record[name]))
                errors[problem][name] = total.to_json()
        write_metadata(
            self.path,
            complete,
            coordinates,
            about,
            self.problems,
            trajectories_per_chunk=self.trajectories_per_chunk,
        )
        return errors

    def _record(self, piece: Piece) -> Path:
        return self.records / piece.problem / f"{piece.chunk:06d}.json"


def write_metadata(
    path: Path,
    attributes: Mapping[str, dict[str, Any]],
    coordinates: Mapping[str, Coordinates],
    about: dict[str, Any],
    shapes: Mapping[str, ArrayShapes] | None = None,
    *,
    trajectories_per_chunk: int = 1,
) -> None:
    """Every `zarr.json` of a cache at `path`, and its coordinates, durably, as zarr itself would write them.

    Without shapes the groups have no other arrays: the cache of a run that encodes on the fly.
    """
    written: dict[str, Any] = {}
    store = MemoryStore(written)
    shared = {"format": FORMAT} | about
    root = zarr.create_group(store, attributes=_summed(shared | {"problems": list(attributes)}))
    for problem, values in attributes.items():
        group = root.create_group(problem, attributes=_summed(shared | values))
        for name, axis in coordinates[problem].items():
            group.create_array(name, data=np.asarray(axis), compressors=None, dimension_names=(name,))
        for name, (shape, axes) in shapes[problem].arrays().items() if shapes else ():
            group.create_array(
                name,
                shape=shape,
                chunks=(min(trajectories_per_chunk, shape[0]), *shape[1:]),
                dtype="float16",
                serializer=BytesCodec(),
                compressors=[Crc32cCodec()],
                dimension_names=axes,
            )
    for key, content in written.items():
        write_bytes(path / key, content.to_bytes())


def _summed(attributes: dict[str, Any]) -> dict[str, Any]:
    return attributes | {"sum": attributes_sum(attributes)}
