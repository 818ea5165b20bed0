"""Published files, or rows of them: fetched, and trajectories taken out of them."""

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ups.artifacts.checksums import file_checksums
from ups.artifacts.files import read_json, write_json
from ups.config.data import PublishedData
from ups.data.pdebench import PDEBenchFile, inspect
from ups.data.splits import split_rows
from ups.errors import DataError
from ups.problems.published import DOWNLOADS, TEST_ROWS, PublishedFile
from ups.runtime.request import Request
from ups.tools.copying import copy_splits
from ups.transfer.download import HDF5_SIGNATURE, address_of, download
from ups.transfer.remote_rows import fetch_rows
from ups.transfer.retry import RetryPolicy

log = logging.getLogger(__name__)

_SECONDS_BETWEEN_LINES = 5.0


class Fetched(NamedTuple):
    """A file in the downloads, and its sha256 as it was just checked or written."""

    path: Path
    sha256: str


def make(
    name: str, data: PublishedData, request: Request, missing: Mapping[str, Path]
) -> dict[str, dict[str, Any]]:
    """Fetch a published file, or some rows of it, and copy the missing splits; see `ups.tools.generation.make`.

    Fetched files are kept below the root, so that no other run fetches them again.
    """
    downloads = request.root / DOWNLOADS
    published = data.published
    parameters, boundary = published.parameters, published.boundary
    ranges = None if data.rows is None else [data.rows.by_split()[split] for split in missing]
    path, _ = fetch(published, data.address, ranges, downloads, deadline_seconds=data.deadline_hours * 3600)
    described = inspect(path, problem=published.problem_name, parameters=parameters, boundary=boundary)
    _require_published_shape(described, published)
    if data.rows is None:
        splits = split_rows(described.rows, data.counts.model_dump(), seed=data.seed, test_first=TEST_ROWS)
    else:
        assert described.original_rows is not None
        numbers = described.original_rows
        splits = {
            split: np.flatnonzero((numbers >= start) & (numbers < stop))
            for split, (start, stop) in data.rows.by_split().items()
            if split in missing
        }
    return copy_splits(name, data, described, splits, request.configuration, missing)


def _require_published_shape(described: PDEBenchFile, published: PublishedFile) -> None:
    """Rows come without a sum of the whole file: their shape is what can be compared.

    Raises:
        DataError: another file lies at the address.
    """
    grid = (published.resolution,) * len(described.grid)
    frames = described.frames if described.problem.is_map else published.frames
    if (described.frames, described.grid) != (frames, grid):
        raise DataError(
            f"has {described.frames} frames of {described.grid} points, and {published.name} has {frames} of {grid}",
            where=str(described.path),
            fix="check data.address, and delete this file",
        )


def fetch(
    published: PublishedFile,
    template: str,
    rows: list[tuple[int, int]] | None,
    downloads: Path,
    *,
    deadline_seconds: float,
) -> Fetched:
    """Bring a published file, or only some rows of it, into `downloads`; what is there already is checked.

    Args:
        template: of addresses; see `ups.transfer.download.address_of`.
        rows: ranges [start, stop), in any order; None: the whole file.

    Raises:
        DataError, IntegrityError, StorageError, PreflightError: see `ups.transfer.download` and
            `ups.transfer.remote_rows`.
    """
    address = address_of(template, file_id=published.file_id, name=published.file_name)
    progress = _Progress(published.file_name)
    policy = RetryPolicy(deadline_seconds=deadline_seconds)
    if rows is None:
        path = downloads / published.file_name
        sha256 = download(
            address,
            path,
            md5=published.md5,
            size=published.bytes,
            signature=HDF5_SIGNATURE,
            policy=policy,
            progress=progress,
        )
        return Fetched(path, sha256)
    ranges = _merged(rows)
    label = "_".join(f"{start}-{stop}" for start, stop in ranges)
    path = downloads / f"{published.name}.rows-{label}.hdf5"
    record = path.with_suffix(".json")
    if path.exists() and record.exists():
        known = read_json(record)
        if file_checksums(path).sha256 == known["sha256"]:
            log.info("%s: %d rows are here already", published.name, known["rows"])
            return Fetched(path, known["sha256"])
        log.warning("%s: the rows that are here are damaged; fetching them again", published.name)
    keys = [array.key for array in published.problem.arrays]
    fetched = fetch_rows(address, keys, ranges, path, policy=policy, progress=progress)
    sha256 = file_checksums(path).sha256
    write_json(record, {"dataset": published.name, "file_id": published.file_id, "sha256": sha256} | fetched)
    return Fetched(path, sha256)


def _merged(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ascending ranges; those that touch become one."""
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(ranges):
        if merged and merged[-1][1] == start:
            merged[-1] = (merged[-1][0], stop)
        else:
            merged.append((start, stop))
    return merged


class _Progress:
    """A line of progress now and then."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.started = self.reported = time.monotonic()
        self.first: int | None = None

    def __call__(self, done: int, total: int | None) -> None:
        self.first = done if self.first is None else self.first
        now = time.monotonic()
        if now - self.reported < _SECONDS_BETWEEN_LINES and done != total:
            return
        self.reported = now
        rate = (done - self.first) / max(now - self.started, 1e-9)
        whole = "" if total is None else f"/{total / 1e6:.1f}"
        log.info("%s: fetched %.1f%s MB  %.1f MB/s", self.name, done / 1e6, whole, rate / 1e6)
