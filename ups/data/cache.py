"""The zarr cache of standardised latents and physical fields.

One zarr v3 group: `latents[n, t, k, d]` and `fields/<name>[n, t, *grid]`, float16; `coordinates`, `times`,
`rows`; statistics, splits and provenance in the attributes. A chunk is a slab of whole trajectories,
uncompressed C order followed by its crc32c (the `crc32c` codec): any zarr reader verifies it, and the bytes
before the sum can be memory-mapped as they are. Measured alternatives (one trajectory per chunk, shards,
compression) read 30 to 100 times slower at random.

float16 holds 11 bits: a relative error of 4.9e-4 (2^-11) at most per value, and below 6.1e-5 an absolute one
of 3.0e-8 (2^-25). The writer measures and reports it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BytesCodec, Crc32cCodec

from ups.artifacts.files import read_json, sync_file, write_json
from ups.errors import DataError

GROUP = "cache.zarr"
_LARGEST = float(np.finfo(np.float16).max)


@dataclass
class RoundTrip:
    """Error of storing as float16: squared error and squared values, summed, and the largest error."""

    squared_error: float = 0.0
    squared_value: float = 0.0
    largest: float = 0.0

    def add(self, exact: NDArray[np.float32], stored: NDArray[np.float16]) -> None:
        error = stored.astype(np.float64) - exact
        self.squared_error += float(np.square(error).sum())
        self.squared_value += float(np.square(exact.astype(np.float64)).sum())
        self.largest = max(self.largest, float(np.abs(error).max(initial=0)))

    def to_json(self) -> dict[str, float]:
        relative = (self.squared_error / self.squared_value) ** 0.5 if self.squared_value else 0.0
        return {"relative_l2": relative, "largest": self.largest}


class CacheWriter:
    """Writes slab after slab and can go on after being killed.

    A slab counts when all its chunks are on the disk and `progress.json` says so; what a killed process
    left of the next one is written over.
    """

    def __init__(
        self,
        output: Path,
        progress: Path,
        *,
        rows: int,
        frames: int,
        latent_shape: tuple[int, int],
        grid: tuple[int, ...],
        names: tuple[str, ...],
        slab: int,
        attributes: dict[str, Any],
    ) -> None:
        """latent_shape: (tokens, dim); slab: trajectories per chunk; attributes: JSON for the group."""
        self.path = output / GROUP
        self.progress = progress
        self.slab = slab
        self.rows = rows
        self.round_trip = {name: RoundTrip() for name in ("latents", *(f"fields/{n}" for n in names))}
        self.names = names
        self.done = 0
        if progress.exists():
            state = read_json(progress)
            self.done = state["slabs"]
            self.round_trip = {name: RoundTrip(**values) for name, values in state["round_trip"].items()}
            self.group = zarr.open_group(self.path, mode="r+")
            for unfinished in self.path.rglob("*.partial"):  # zarr renames a chunk once it is whole
                unfinished.unlink()
            return
        self.group = zarr.open_group(self.path, mode="w", attributes=attributes)
        self._create("latents", (rows, frames, *latent_shape), ("trajectory", "time", "token", "channel"))
        axes = ("x", "y", "z")[: len(grid)]
        for name in names:
            self._create(f"fields/{name}", (rows, frames, *grid), ("trajectory", "time", *axes))

    @property
    def slabs(self) -> int:
        return -(-self.rows // self.slab)

    def rows_of(self, slab: int) -> slice:
        return slice(slab * self.slab, min(self.rows, (slab + 1) * self.slab))

    def write_slab(self, slab: int, latents: NDArray[np.float32], fields: NDArray[np.float32]) -> None:
        """Latents [n, t, k, d] and physical fields [n, t, *grid, C] of the slab's rows.

        Raises:
            DataError: a value does not fit float16.
        """
        values = {"latents": latents} | {
            f"fields/{name}": fields[..., channel] for channel, name in enumerate(self.names)
        }
        for name, exact in values.items():
            largest = float(np.abs(exact).max(initial=0))
            if not largest <= _LARGEST:
                raise DataError(
                    f"value {largest:g} does not fit float16 (largest {_LARGEST:g})",
                    where=f"{name}, trajectories {self.rows_of(slab)}",
                    fix="rescale the field's units in the source file",
                )
            stored = exact.astype(np.float16)
            self.round_trip[name].add(exact, stored)
            # A chunk of zeros is not written otherwise, and could not be told from one that was lost. The
            # setting belongs to the opened array, not to the stored one.
            with zarr.config.set({"array.write_empty_chunks": True}):
                array = self.group[name]
            assert isinstance(array, zarr.Array)
            array[self.rows_of(slab)] = stored
            for chunk in (self.path / name / "c" / str(slab)).rglob("*"):
                if chunk.is_file():
                    sync_file(chunk)
        self.done = slab + 1
        round_trip = {name: vars(error) for name, error in self.round_trip.items()}
        write_json(self.progress, {"slabs": self.done, "round_trip": round_trip})

    def _create(self, name: str, shape: tuple[int, ...], dimensions: tuple[str, ...]) -> None:
        self.group.create_array(
            name,
            shape=shape,
            chunks=(min(self.slab, shape[0]), *shape[1:]),
            dtype="float16",
            serializer=BytesCodec(),
            compressors=[Crc32cCodec()],
            dimension_names=dimensions,
        )


@dataclass(frozen=True, eq=False)
class LatentCache:
    """A cache in memory.

    Attributes:
        latents: [n, t, K, d] float16, standardised.
        fields: [n, t, *grid, C] float16, physical units.
        attributes: splits, scalars, names, provenance.
    """

    latents: NDArray[np.float16]
    fields: NDArray[np.float16]
    attributes: dict[str, Any]

    def rows(self, split: str) -> NDArray[np.int64]:
        """Rows of a split."""
        return np.asarray(self.attributes["splits"][split], dtype=np.int64)

    def fitted_and_held_out(self, residual_fraction: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Train rows that the operator fits, and those kept for the model of its residual.

        Residuals on fitted trajectories are smaller than on new ones; a model of them is over-confident.
        """
        train = self.rows("train")
        held_out = round(len(train) * residual_fraction)
        return train[: len(train) - held_out], train[len(train) - held_out :]


def open_cache(artifact: Path) -> LatentCache:
    """Read a cache artifact to memory; zarr checks the crc32c of every chunk.

    Presence of all chunks is the artifact's verification, which has a list of them: to zarr a missing chunk
    is a chunk of zeros.
    """
    group = zarr.open_group(artifact / GROUP, mode="r")
    attributes: dict[str, Any] = dict(group.attrs)
    fields = [np.asarray(group[f"fields/{name}"]) for name in attributes["names"]]
    return LatentCache(np.asarray(group["latents"]), np.stack(fields, axis=-1), attributes)
