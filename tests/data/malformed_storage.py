"""Datasets whose values are stored in other ways, or not at all, or declared to be more than they are."""

import math
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
from malformed_bases import Case


def storage_cases(base: str, key: str) -> Iterator[Case]:
    def stored(make: Callable[[h5py.File, np.ndarray], object]) -> Callable[[Path], None]:
        def spoil(path: Path) -> None:
            with h5py.File(path, "r+") as file:
                values = file[key][:]
                del file[key]
                make(file, values)

        return spoil

    def unknown_filter(file: h5py.File, values: np.ndarray) -> None:
        creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        creation.set_chunk(values.shape)
        creation.set_filter(31999, h5py.h5z.FLAG_OPTIONAL)
        dataset = h5py.h5d.create(
            file.id, key.encode(), h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple(values.shape), creation
        )
        dataset.write_direct_chunk((0,) * values.ndim, values.tobytes())

    def damaged_chunk(file: h5py.File, values: np.ndarray) -> None:
        dataset = file.create_dataset(key, values.shape, "f4", chunks=values.shape, compression="gzip")
        dataset.id.write_direct_chunk((0,) * values.ndim, bytes(range(200)))

    def deflated(file: h5py.File, values: np.ndarray, content: bytes, rows: int) -> None:
        dataset = file.create_dataset(
            key,
            values.shape,
            "f4",
            chunks=(rows, *values.shape[1:]),
            maxshape=(None, *values.shape[1:]),
            compression="gzip",
        )
        dataset.id.write_direct_chunk((0,) * values.ndim, zlib.compress(content))

    def short_chunk(file: h5py.File, values: np.ndarray) -> None:
        deflated(file, values, values.tobytes()[:100], len(values))

    def shorter_chunk(file: h5py.File, values: np.ndarray) -> None:
        """A megabyte that decodes to 400 bytes: HDF5 2.0 reads on behind them, and may crash."""
        deflated(file, values, values.tobytes()[:400], 2**20 // values[:1].nbytes)

    def long_chunk(file: h5py.File, values: np.ndarray) -> None:
        deflated(file, values, values.tobytes() + bytes(4), len(values))

    def half_a_chunk(file: h5py.File, values: np.ndarray) -> None:
        dataset = file.create_dataset(key, values.shape, "f4", chunks=values.shape)
        dataset.id.write_direct_chunk((0,) * values.ndim, values.tobytes()[: values.nbytes // 2])

    def wrong_sum(file: h5py.File, values: np.ndarray) -> None:
        dataset = file.create_dataset(key, values.shape, "f4", chunks=values.shape, fletcher32=True)
        dataset.id.write_direct_chunk((0,) * values.ndim, values.tobytes() + b"sum?")

    def bomb(file: h5py.File, values: np.ndarray) -> None:
        shape, chunk = (2**21, *values.shape[1:]), (2**20, *values.shape[1:])
        dataset = file.create_dataset(key, shape, "f4", chunks=chunk, compression="gzip")
        for start in (0, 2**20):
            dataset.id.write_direct_chunk((start, *(0,) * (values.ndim - 1)), bytes(300))

    def virtual(file: h5py.File, values: np.ndarray) -> None:
        layout = h5py.VirtualLayout(values.shape, "f4")
        layout[...] = h5py.VirtualSource("/dev/zero", key, values.shape)
        file.create_virtual_dataset(key, layout)

    makes: dict[str, tuple[Callable, str]] = {
        "chunked": (lambda file, v: file.create_dataset(key, data=v, chunks=(1, *v.shape[1:])), "equal"),
        "growable": (lambda file, v: file.create_dataset(key, data=v, maxshape=(None,) * v.ndim), "equal"),
        "gzip": (lambda file, v: file.create_dataset(key, data=v, compression="gzip"), "equal"),
        "lzf": (lambda file, v: file.create_dataset(key, data=v, compression="lzf"), "error"),
        "scale-offset": (lambda file, v: file.create_dataset(key, data=v, scaleoffset=3), "error"),
        "never-written": (lambda file, v: file.create_dataset(key, v.shape, "f4"), "error"),
        "no-chunk-written": (lambda file, v: file.create_dataset(key, v.shape, "f4", chunks=True), "error"),
        "external": (
            lambda file, v: file.create_dataset(key, v.shape, "f4", external=[("/dev/zero", 0, v.nbytes)]),
            "error",
        ),
        "virtual": (virtual, "error"),
        "trillion-rows": (
            lambda file, v: file.create_dataset(
                key, (2**40, *v.shape[1:]), "f4", chunks=(1, *v.shape[1:])
            ).__setitem__(slice(0, len(v)), v),
            "error",
        ),
        "unknown-filter": (unknown_filter, "error"),
        "damaged-chunk": (damaged_chunk, "error"),
        "short-chunk": (short_chunk, "error"),
        "shorter-chunk": (shorter_chunk, "error"),
        "long-chunk": (long_chunk, "error"),
        "half-a-chunk": (half_a_chunk, "error"),
        "wrong-sum": (wrong_sum, "error"),
        "bomb": (bomb, "error"),
    }
    undecodable = {"damaged-chunk", "short-chunk", "shorter-chunk", "long-chunk", "half-a-chunk"}
    for name, (make, outcome) in makes.items():
        about = f"{key}: has a chunk at" if name in undecodable else key if outcome == "error" else ""
        yield Case(f"{base}-{key}-{name}", base, stored(make), outcome, about=about)


def extent_cases(base: str, key: str) -> Iterator[Case]:
    """Another extent written over the one in the header, and consistently over all that follows from it."""

    def patched(axis: int, length: int, *, consistently: bool) -> Callable[[Path], None]:
        def spoil(path: Path) -> None:
            with h5py.File(path) as file:
                dataset = file[key]
                shape, itemsize = list(dataset.shape), dataset.dtype.itemsize
                address, header = dataset.id.get_offset(), h5py.h5o.get_info(dataset.id).addr
            changed = [length if index == axis % len(shape) else side for index, side in enumerate(shape)]
            replacements = [(shape, changed)]
            if consistently:
                sizes = [math.prod(sides) * itemsize % 2**64 for sides in (shape, changed)]
                replacements = [(2 * shape, 2 * changed), ([address, sizes[0]], [address, sizes[1]])]
            content = path.read_bytes()
            for before, after in replacements:
                at = content.index(_numbers(before), header)
                content = content[:at] + _numbers(after) + content[at + 8 * len(after) :]
            path.write_bytes(content)

        return spoil

    for length in (0, 2**20, 2**40, 2**64 - 1):
        for axis in (0, -1):
            for kind in ("extent", "everything"):
                yield Case(
                    f"{base}-{key}-axis{axis}-{kind}-{length}",
                    base,
                    patched(axis, length, consistently=kind == "everything"),
                    "error",
                    about=key,
                )


def _numbers(values: list[int]) -> bytes:
    return struct.pack(f"<{len(values)}Q", *values)
