"""Chunks of an HDF5 dataset, checked before the library decodes them.

HDF5 2.0 does not compare what a filter returns with the size of the chunk: a compressed chunk that decodes to
less than it should makes it read beyond its buffer (measured: a crash, or other values of the process in the
fields). So of the chunks that a read touches, the stored sizes are checked, and compressed ones are decoded once
beforehand, up to their size. That doubles the cost of decoding; PDEBench's own files are not compressed.
"""

import itertools
import math
import zlib

import h5py

from ups.errors import DataError

# A chunk is decoded as a whole, whatever of it was asked for.
_MOST_BYTES = 256 * 1024 * 1024
_MOST_TIMES_ROW = 256
_ALWAYS_BYTES = 1024 * 1024  # what h5py chooses by itself

# deflate cannot do better than 1032; a file that claims more is a bomb, or was never filled.
_DECODED_TIMES_FILE = 1100

_CHECKSUM_BYTES = 4
_FILTERS = {
    h5py.h5z.FILTER_SHUFFLE: "shuffle",
    h5py.h5z.FILTER_DEFLATE: "gzip",
    h5py.h5z.FILTER_FLETCHER32: "fletcher32",
}


def check_chunking(dataset: h5py.Dataset, file_bytes: int, where: str) -> None:
    """The chunks that a dataset declares are there, of moderate size, and of a kind that can be checked.

    Raises:
        DataError: they are not.
    """
    shape, chunks = dataset.shape, _chunk_shape(dataset)
    itemsize = dataset.dtype.itemsize
    declared, chunk = math.prod(shape) * itemsize, math.prod(chunks) * itemsize
    most = min(_MOST_BYTES, max(_ALWAYS_BYTES, _MOST_TIMES_ROW * (declared // shape[0])))
    if chunk > most:
        raise DataError(
            f"has chunks of {chunk} bytes, and at most {most} are decoded at once",
            where=where,
            fix="copy it without chunks (`h5repack -l CONTI`), or with smaller ones",
        )
    filters = _filters(dataset)
    if len(filters) != len(set(filters)) or not set(filters) <= set(_FILTERS):
        raise DataError(
            f"has the filters {filters} (HDF5's numbers), and {', '.join(_FILTERS.values())} can be checked",
            where=where,
            fix="copy it without filters (`h5repack -f NONE`)",
        )
    needed = math.prod(math.ceil(length / side) for length, side in zip(shape, chunks, strict=True))
    if declared > _DECODED_TIMES_FILE * file_bytes or dataset.id.get_num_chunks() < needed:
        raise DataError(
            f"declares {declared} bytes of values for {shape} in {needed} chunks, and the file of "
            f"{file_bytes} bytes does not hold them",
            where=where,
            fix="download it again and compare its MD5 with the published one",
        )


def check_chunks(dataset: h5py.Dataset, selection: tuple[slice, ...], file_bytes: int, where: str) -> None:
    """The chunks under a selection lie in the file and decode to their size.

    Raises:
        DataError: one does not.
    """
    sides = _chunk_shape(dataset)
    filters = _filters(dataset)
    whole = (slice(None),) * (len(sides) - len(selection))
    ranges = [
        range(axis.indices(length)[0] // side * side, axis.indices(length)[1], side)
        for axis, length, side in zip((*selection, *whole), dataset.shape, sides, strict=True)
    ]
    size = math.prod(sides) * dataset.dtype.itemsize
    for origin in itertools.product(*ranges):
        info = dataset.id.get_chunk_info_by_coord(origin)
        inside = info.byte_offset is not None and info.byte_offset + info.size <= file_bytes
        applied = [number for index, number in enumerate(filters) if not info.filter_mask >> index & 1]
        if not inside or not _decodes(dataset, origin, info.size, applied, size):
            raise DataError(
                f"has a chunk at {origin} that does not decode to {size} bytes",
                where=where,
                fix="download it again and compare its MD5 with the published one",
            )


def _decodes(
    dataset: h5py.Dataset, origin: tuple[int, ...], stored: int, filters: list[int], size: int
) -> bool:
    """Whether a chunk of `stored` bytes gives `size` bytes behind `filters`, which are in order of writing."""
    before = size
    for position, number in enumerate(filters):
        if number == h5py.h5z.FILTER_FLETCHER32:
            before += _CHECKSUM_BYTES
        elif number == h5py.h5z.FILTER_DEFLATE:
            sums = _CHECKSUM_BYTES * (len(filters) - 1 - position)  # nothing but a checksum may follow
            if h5py.h5z.FILTER_SHUFFLE in filters[position:]:
                return False
            content = bytes(dataset.id.read_direct_chunk(origin)[1])
            inflation = zlib.decompressobj()
            try:
                inflated = inflation.decompress(content[: stored - sums], before + 1)
            except zlib.error:
                return False
            return inflation.eof and len(inflated) == before and not inflation.unused_data
    return stored == before


def _chunk_shape(dataset: h5py.Dataset) -> tuple[int, ...]:
    return dataset.id.get_create_plist().get_chunk()


def _filters(dataset: h5py.Dataset) -> list[int]:
    """HDF5's numbers of the filters, in the order in which they are applied on writing."""
    creation = dataset.id.get_create_plist()
    return [creation.get_filter(index)[0] for index in range(creation.get_nfilters())]
