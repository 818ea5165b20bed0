"""Files spoiled without regard to what their bytes mean: cut off, flipped, overwritten, replaced."""

import gzip
import os
import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
from malformed_bases import Case, problem_of
from small_files import ROWS

from ups.problems import PROBLEMS
from ups.problems.published import PUBLISHED


def byte_cases(base: str) -> Iterator[Case]:
    draw = random.Random(f"bytes of {base}")
    truncations, changes = (40, 120) if base in PROBLEMS else (10, 40)
    for index in range(truncations):
        kept = (index + 0.5) / truncations if index else draw.random() * 0.01
        yield Case(f"{base}-truncated-{index}", base, _truncate(kept), "error")
    kinds = (_flip, _overwrite, _random_bytes, _address, _sprinkle, _copy_over, _zero)
    for index in range(changes):
        kind = kinds[index % len(kinds)]
        yield Case(
            f"{base}-{kind.__name__.strip('_')}-{index}",
            base,
            _in_bytes(kind, random.Random(f"{base} {index}")),
            "either",
        )


def _truncate(kept: float) -> Callable[[Path], object]:
    return lambda path: os.truncate(path, int(kept * path.stat().st_size))


def _in_bytes(change: Callable[[bytearray, random.Random], None], draw: random.Random):
    state = draw.getstate()

    def spoil(path: Path) -> None:
        draw.setstate(state)
        content = bytearray(path.read_bytes())
        size = len(content)
        change(content, draw)
        path.write_bytes(content[:size])

    return spoil


def _anywhere_in_headers(content: bytearray, draw: random.Random) -> int:
    """h5py's headers lie in the first two kilobytes, and in small files also behind the values."""
    return draw.randrange(2048 if len(content) > 65536 else min(4096, len(content) - 8))


def _flip(content: bytearray, draw: random.Random) -> None:
    content[_anywhere_in_headers(content, draw)] ^= 1 << draw.randrange(8)


def _overwrite(content: bytearray, draw: random.Random) -> None:
    content[_anywhere_in_headers(content, draw)] = draw.choice([0, 1, 127, 128, 255])


def _random_bytes(content: bytearray, draw: random.Random) -> None:
    start = _anywhere_in_headers(content, draw)
    content[start : start + 8] = draw.randbytes(8)


def _address(content: bytearray, draw: random.Random) -> None:
    """Another 8-byte address or length: nowhere, undefined, astronomic, the end, the root, itself."""
    start = _anywhere_in_headers(content, draw) // 8 * 8
    value = draw.choice([0, 2**64 - 1, 2**40, 2**63, len(content), len(content) - 1, 96, start])
    content[start : start + 8] = struct.pack("<Q", value)


def _sprinkle(content: bytearray, draw: random.Random) -> None:
    for _ in range(draw.randrange(2, 30)):
        content[_anywhere_in_headers(content, draw)] = draw.randrange(256)


def _copy_over(content: bytearray, draw: random.Random) -> None:
    """A piece of the file where another belongs, as after a misplaced block."""
    start, source = _anywhere_in_headers(content, draw), _anywhere_in_headers(content, draw)
    length = draw.randrange(1, 256)
    content[start : start + length] = content[source : source + length]


def _zero(content: bytearray, draw: random.Random) -> None:
    start = _anywhere_in_headers(content, draw)
    length = draw.choice([8, 64, 512])
    content[start : start + length] = bytes(length)


# Values


def value_cases(base: str) -> Iterator[Case]:
    if "-" in base:
        return  # in chunks: other offsets, and a checksum of HDF5's own
    problem, draw = problem_of(base), random.Random(f"values of {base}")
    rows = {"2D_DarcyFlow_beta1.0_Train": 2}.get(base, 4 if base in PUBLISHED else ROWS)
    for array in problem.arrays:
        for index in range(12):
            row, bit = draw.randrange(rows), (0, 2, 5, 9, 13, 17, 21, 22, 23, 26, 30, 31)[index]
            yield Case(
                f"{base}-{array.key}-bit-{bit}",
                base,
                _flip_value(array.key, row, draw.random(), bit),
                "row",
                about=array.key,
                row=row,
            )
    last = problem.arrays[-1].key
    for value in (
        np.nan,
        np.inf,
        -np.inf,
        1e30,
        -1e13,
        *((0.0, -1.0) if problem.fields[-1].positive else ()),
    ):
        yield Case(
            f"{base}-{last}-holds-{value}", base, _set_value(last, 1, value), "error", f"{last}: row 1"
        )


def _flip_value(key: str, row: int, where: float, bit: int) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        with h5py.File(path) as file:
            size = file[key].size // len(file[key])
            offset = file[key].id.get_offset() + 4 * (row * size + int(where * size)) + bit // 8
        with path.open("r+b") as file:
            file.seek(offset)
            (byte,) = file.read(1)
            file.seek(offset)
            file.write(bytes([byte ^ 1 << bit % 8]))

    return spoil


def _set_value(key: str, row: int, value: float) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            file[key][(row, *(length // 2 for length in file[key].shape[1:]))] = value

    return spoil


# The file as a whole


def whole_file_cases(base: str) -> Iterator[Case]:
    def instead(content: Callable[[bytes], bytes]) -> Callable[[Path], object]:
        return lambda path: path.write_bytes(content(path.read_bytes()))

    def directory(path: Path) -> None:
        path.unlink()
        path.mkdir()

    def dangling(path: Path) -> None:
        path.unlink()
        path.symlink_to(path.with_name("nowhere"))

    def pipe(path: Path) -> None:
        path.unlink()
        os.mkfifo(path)

    def loop(path: Path) -> None:
        path.unlink()
        path.symlink_to(path.name)

    def cut_and_patched(content: bytes) -> bytes:
        """Cut off, and the length that the superblock tells made to match: HDF5 does not notice at first."""
        cut = content[:-20]
        return cut.replace(struct.pack("<Q", len(content)), struct.pack("<Q", len(cut)), 1)

    spoils: dict[str, tuple[Callable[[Path], object], str]] = {
        "empty": (instead(lambda _: b""), "error"),
        "one-byte": (instead(lambda content: content[:1]), "error"),
        "signature-only": (instead(lambda content: content[:8]), "error"),
        "html": (instead(lambda _: b"<!DOCTYPE html><html>503 Service Unavailable</html>\n" * 40), "error"),
        "json": (instead(lambda _: b'{"status":"ERROR","code":404}'), "error"),
        "gzip": (instead(lambda content: gzip.compress(content, mtime=0)), "error"),
        "zeros": (instead(lambda content: bytes(len(content))), "error"),
        "noise": (instead(lambda content: random.Random(0).randbytes(len(content))), "error"),
        "reversed": (instead(lambda content: content[::-1]), "error"),
        "text-mode": (instead(lambda content: content.replace(b"\n", b"\r\n")), "error"),
        "cut-and-patched": (instead(cut_and_patched), "error"),
        "one-byte-early": (instead(lambda content: b"\0" + content), "error"),
        "user-block": (instead(lambda content: bytes(512) + content), "equal"),
        "tail": (instead(lambda content: content + b"appended by a proxy"), "equal"),
        "twice": (instead(lambda content: content + content), "equal"),
        "removed": (lambda path: path.unlink(), "error"),
        "directory": (directory, "error"),
        "dangling-link": (dangling, "error"),
        "circular-link": (loop, "error"),
        "pipe": (pipe, "error"),
    }
    for name, (spoil, outcome) in spoils.items():
        yield Case(f"{base}-{name}", base, spoil, outcome)
