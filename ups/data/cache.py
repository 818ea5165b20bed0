"""The zarr cache of standardised latents and physical fields, read back.

One zarr v3 group per problem, which xarray opens as a dataset: `latents [n, t, K, d]` and each field by its name
[n, t, *grid], float16, unknown values 0; with coordinates `time [t]` and one per space axis, float64. The group's attributes
hold everything else: names, splits, original row numbers, parameters, statistics, what the latents were encoded
by, and the crc32c of every chunk.

Layout. A chunk holds whole trajectories, uncompressed, followed by its crc32c: a file to be mapped.
Random batches of 32 trajectories (201 frames x 32 tokens x 16 channels, 6.6 MB) of 512, two busy cores, files in
the page cache (`ups.benchmarks.latents`, which also gives the ratios elsewhere):

    chunks of 128, mapped                    0.7 ms
    the same chunks through zarr             134 ms   190 times as long
    one trajectory per chunk, zarr            91 ms   130
    one trajectory per chunk, zstd, zarr      51 ms    73
    chunks of 128, zstd, zarr                200 ms   285

Per chunk, zarr's event loop costs more than the bytes do; shards are slower still, and what cannot be mapped must
be read whole. Compression would save a quarter to a half of the bytes, at these prices. Long chunks keep the number
of files low (some ten per gigabyte), and a batch costs the same whatever their length.

What belongs together is found together or refused. The attributes carry a sum over themselves and the sha256 of
`codec.safetensors`, the frozen encoder with the statistics that give the latents their meaning; they are written
last, so that a cache without them is unfinished. Chunks must exist with their exact size when a cache is opened;
their crc32c is compared with the attributes' when each is first read: the sum at a chunk's own end does not tell that
two chunks were swapped.

float16 holds 11 bits: a relative error of 4.9e-4 (2^-11) at most per value, and below 6.1e-5 an absolute one
of 3.0e-8 (2^-25). The writer measures and reports it.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ups.artifacts.checksums import file_checksums
from ups.artifacts.files import canonical_json
from ups.data.zarr_chunks import REBUILD, ChunkedArray, read_layout, read_metadata
from ups.errors import IntegrityError

GROUP = "cache.zarr"
FORMAT = "universal-physics-stack latent cache 4"
LATENTS = "latents"
TIME = "time"


def attributes_sum(attributes: Mapping[str, Any]) -> str:
    """sha256 over all attributes but the sum itself."""
    return hashlib.sha256(canonical_json({k: v for k, v in attributes.items() if k != "sum"})).hexdigest()


class LatentCache:
    """The cached trajectories of one problem. Values stay in the page cache until they are asked for.

    Attributes:
        attributes: see the module.
        names: of the C fields.
        known: [t, C] which fields are known in which frame.
        scored: channels that a forecast is scored on.
        scalars: [S] conditioning.
        time_step: between frames; 1 for a map.
        parameters: of the equation.
        shape: `ups.models.shape.ProblemShape` as JSON.
        stored: whether there are arrays; with `loading.mode: encode` a cache holds the attributes alone.
    """

    def __init__(self, directory: Path, attributes: dict[str, Any], *, verify: bool) -> None:
        """Use `open_caches`, which checks the attributes.

        Raises:
            IntegrityError: an array or a chunk is missing or has another shape or size than it should.
        """
        self.directory = directory
        self.attributes = attributes
        self.names = tuple(attributes["names"])
        self.known = np.array(attributes["known"], dtype=bool)
        self.scored: list[int] = attributes["scored"]
        self.scalars: list[float] = attributes["scalars"]
        self.time_step: float = attributes["time_step"]
        self.parameters: dict[str, float] = attributes["parameters"]
        self.shape: dict[str, Any] = attributes["shape"]
        self.stored: bool = attributes["stored"]
        self._latents: ChunkedArray | None = None
        self._fields: list[ChunkedArray] = []
        if self.stored:
            extent = (self.trajectories, self.frames)
            self._latents = self._open(LATENTS, (*extent, *attributes["latent_shape"]), verify)
            grid = self.shape["grid"]
            self._fields = [self._open(name, (*extent, *grid), verify) for name in self.names]

    @property
    def trajectories(self) -> int:
        return len(self.attributes["rows"])

    @property
    def frames(self) -> int:
        return len(self.known)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """[t, K, d] of one trajectory."""
        return (self.frames, *self.attributes["latent_shape"])

    @property
    def field_shape(self) -> tuple[int, ...]:
        """[t, *grid, C] of one trajectory."""
        return (self.frames, *self.shape["grid"], len(self.names))

    @property
    def bytes(self) -> int:
        """Size of all stored values."""
        return self.trajectories * self.row_bytes(fields=True) if self.stored else 0

    def row_bytes(self, *, fields: bool) -> int:
        """Size of one trajectory's latents, and its fields if they are wanted."""
        latents = int(np.prod(self.latent_shape))
        return 2 * (latents + (int(np.prod(self.field_shape)) if fields else 0))

    def rows(self, split: str) -> NDArray[np.int64]:
        """Rows of a split."""
        return np.asarray(self.attributes["splits"][split], dtype=np.int64)

    def latents(self, rows: NDArray[np.int64]) -> NDArray[np.float16]:
        """Standardised latents [n, t, K, d] of some rows.

        Raises:
            IntegrityError: a chunk is not what was written; see `open_caches`.
        """
        values = np.empty((len(rows), *self.latent_shape), dtype=np.float16)
        self.read_latents(rows, values)
        return values

    def fields(self, rows: NDArray[np.int64]) -> NDArray[np.float16]:
        """Physical fields [n, t, *grid, C] of some rows; raises as `latents`."""
        values = np.empty((len(rows), *self.field_shape), dtype=np.float16)
        self.read_fields(rows, values)
        return values

    def read_latents(self, rows: NDArray[np.int64], out: NDArray[np.float16]) -> None:
        """As `latents`, into memory of the caller."""
        self._latent_array().read(rows, out)

    def read_fields(self, rows: NDArray[np.int64], out: NDArray[np.float16]) -> None:
        """As `fields`, into memory of the caller."""
        for channel, array in enumerate(self._field_arrays()):
            array.read(rows, out[..., channel])

    def read_latent_windows(
        self, rows: NDArray[np.int64], starts: NDArray[np.int64], out: NDArray[np.float16]
    ) -> None:
        """Frames starts[i] onwards of row rows[i], out [B, T, K, d]."""
        self._latent_array().read_windows(rows, starts, out)

    def read_field_windows(
        self, rows: NDArray[np.int64], starts: NDArray[np.int64], out: NDArray[np.float16]
    ) -> None:
        """Frames starts[i] onwards of row rows[i], out [B, T, *grid, C]."""
        for channel, array in enumerate(self._field_arrays()):
            array.read_windows(rows, starts, out[..., channel])

    def _latent_array(self) -> ChunkedArray:
        if self._latents is None:
            raise ValueError(f"{self.directory} holds no values: it was built with loading.mode encode")
        return self._latents

    def _field_arrays(self) -> list[ChunkedArray]:
        self._latent_array()
        return self._fields

    def _open(self, name: str, shape: tuple[int, ...], verify: bool) -> ChunkedArray:
        layout = read_layout(self.directory / name)
        if layout.shape != shape:
            raise IntegrityError(
                f"has shape {layout.shape}, its group says {shape}", where=str(layout.directory), fix=REBUILD
            )
        return ChunkedArray(layout, self.attributes["crc32c"][name], verify=verify)


def open_caches(artifact: Path, *, verify: bool = True) -> dict[str, LatentCache]:
    """Open the cache of every problem, in the order of the configuration. Reads attributes, no values.

    Args:
        artifact: directory of the artifact of `cache_encode`.
        verify: compare the crc32c of each chunk when it is first read in this process. Without it a cache is
            trusted as it lies there, for measurements.

    Raises:
        IntegrityError: a file is missing or short, the attributes were changed, or the cache was not written
            with the codec beside it. Later, a chunk is not what was written.
        StorageError: something cannot be read.
    """
    root = artifact / GROUP
    about = _attributes(root)
    caches = {}
    for name in about["problems"]:
        attributes = _attributes(root / name)
        if attributes["codec"] != about["codec"]:
            raise _not_together(root / name, "was encoded by another codec than its neighbours")
        caches[name] = LatentCache(root / name, attributes, verify=verify)
    codec = artifact / about["codec"]["file"]
    try:
        found = file_checksums(codec).sha256
    except FileNotFoundError:
        raise IntegrityError("is missing", where=str(codec), fix=REBUILD) from None
    if found != about["codec"]["sha256"]:
        raise _not_together(codec, "is not the codec that this cache was encoded by")
    return caches


def _attributes(directory: Path) -> dict[str, Any]:
    """Attributes of a group that vouch for themselves."""
    attributes = read_metadata(directory).get("attributes") or {}
    if attributes.get("format") != FORMAT:
        raise IntegrityError(
            f"is no cache of this version: format {attributes.get('format')!r}, expected {FORMAT!r}",
            where=str(directory),
            fix=REBUILD,
        )
    if attributes.get("sum") != attributes_sum(attributes):
        raise _not_together(directory, "has attributes that were changed after they were written")
    return attributes


def _not_together(path: Path, what: str) -> IntegrityError:
    return IntegrityError(f"{what}: its latents have another meaning", where=str(path), fix=REBUILD)
