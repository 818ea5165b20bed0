"""The two checksums that every file is known by."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import xxhash

_BLOCK = 1 << 20


class Checksums(NamedTuple):
    """sha256 proves, xxh3 (64 bits) is fast enough to check at every open.

    Rejected: crc32c. A zarr chunk ends with its own, and then that of the whole is the same for every chunk of
    a length: two chunks that changed places would pass.
    """

    sha256: str
    xxh3: str


def file_checksums(path: Path) -> Checksums:
    """Both checksums in one pass."""
    strong, fast = hashlib.sha256(), xxhash.xxh3_64()
    for block in blocks_of(path):
        strong.update(block)
        fast.update(block)
    return Checksums(strong.hexdigest(), fast.hexdigest())


def fast_checksum(path: Path) -> str:
    """xxh3 of a file, 64 bits, hexadecimal."""
    fast = xxhash.xxh3_64()
    for block in blocks_of(path):
        fast.update(block)
    return fast.hexdigest()


def blocks_of(path: Path) -> Iterator[bytes]:
    """The bytes of a file, a megabyte at a time."""
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            yield block
