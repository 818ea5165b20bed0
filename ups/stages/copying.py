"""Trajectories taken out of a file in PDEBench's layout: the user's own, or a published one that is fetched."""

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ups.artifacts.files import file_sums, read_json, write_json
from ups.artifacts.sums import recorded_content
from ups.config import Configuration
from ups.config.data import DataFile, PublishedData
from ups.data.pdebench import PDEBenchFile, inspect, read_trajectories
from ups.data.pdebench_writer import TrajectoryWriter
from ups.data.splits import split_rows
from ups.errors import DataError, IntegrityError
from ups.problems.published import TEST_ROWS, PublishedFile
from ups.transfer.download import HDF5_SIGNATURE, address_of, download
from ups.transfer.remote_rows import fetch_rows

log = logging.getLogger(__name__)

Split = dict[str, NDArray[np.int64]]

_BLOCK = 256  # trajectories read and written together
_SECONDS_BETWEEN_LINES = 5.0


class Fetched(NamedTuple):
    """A file in the downloads, and its sha256 as it was just checked or written."""

    path: Path
    sha256: str


def copy_file(
    name: str, data: DataFile, configuration: Configuration, target: Path, root: Path
) -> dict[str, Any]:
    """Copy the chosen rows of the user's file; what `splits.json` says of them.

    Raises:
        IntegrityError: the file's bytes are not those it had when it was first used under `root`.
    """
    path = Path(data.path)
    recorded = recorded_content(path, root)
    if recorded is not None and file_sums(path).sha256 != recorded:
        raise IntegrityError(
            f"no longer has the sha256 {recorded} of its first use, and nobody wrote to it: bits have flipped",
            where=data.path,
            fix="check the disk, and restore the file",
        )
    described = inspect(path, problem=data.problem.name, boundary=getattr(data, "boundary", None))
    try:
        split = split_rows(
            described.rows,
            data.trajectories.model_dump(),
            seed=data.seed,
            test_first=data.test_first,
            original_rows=described.original_rows,
        )
    except DataError as error:
        raise DataError(f"data.trajectories do not fit: {error}", where=data.path) from error
    return _copy(name, data, described, split, configuration, target)


def copy_published(
    name: str, data: PublishedData, configuration: Configuration, target: Path, downloads: Path
) -> dict[str, Any]:
    """Fetch a published file, or some rows of it, and copy the chosen rows; what `splits.json` says of them.

    downloads: where fetched files are kept, so that no other run fetches them again.
    """
    published = data.published
    parameters, boundary = published.parameters, published.boundary
    ranges = None if data.rows is None else list(data.rows.named().values())
    path, _ = fetch(published, data.address, ranges, downloads, deadline_seconds=data.deadline_hours * 3600)
    described = inspect(path, problem=published.problem_name, parameters=parameters, boundary=boundary)
    _require_published_shape(described, published)
    if data.rows is None:
        split = split_rows(described.rows, data.counts.model_dump(), seed=data.seed, test_first=TEST_ROWS)
    else:
        assert described.original_rows is not None
        train, validation = data.rows.split_train()
        ranges = {"train": train, "validation": validation, "test": data.rows.test}
        numbers = described.original_rows
        split = {
            part: np.flatnonzero((numbers >= start) & (numbers < stop))
            for part, (start, stop) in ranges.items()
        }
    return _copy(name, data, described, split, configuration, target)


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
    if rows is None:
        downloaded = download(
            address,
            downloads / published.file_name,
            md5=published.md5,
            size=published.bytes,
            signature=HDF5_SIGNATURE,
            deadline_seconds=deadline_seconds,
            progress=progress,
        )
        return Fetched(downloaded.path, downloaded.sha256)
    ranges = _merged(rows)
    label = "_".join(f"{start}-{stop}" for start, stop in ranges)
    path = downloads / f"{published.name}.rows-{label}.hdf5"
    record = path.with_suffix(".json")
    if path.exists() and record.exists():
        known = read_json(record)
        if file_sums(path).sha256 == known["sha256"]:
            log.info("%s: %d rows are here already", published.name, known["rows"])
            return Fetched(path, known["sha256"])
        log.warning("%s: the rows that are here are damaged; fetching them again", published.name)
    keys = [array.key for array in published.problem.arrays]
    fetched = fetch_rows(address, keys, ranges, path, deadline_seconds=deadline_seconds, progress=progress)
    sha256 = file_sums(path).sha256
    write_json(
        record,
        {
            "dataset": published.name,
            "file_id": published.file_id,
            "sha256": sha256,
            "rows": len(fetched.rows),
            "total_rows": fetched.total_rows,
            "etag": fetched.etag,
            "ranges": fetched.ranges,
        },
    )
    return Fetched(path, sha256)


def _copy(
    name: str,
    data: DataFile | PublishedData,
    described: PDEBenchFile,
    split: Split,
    configuration: Configuration,
    target: Path,
) -> dict[str, Any]:
    """Write the rows of a split on the file's own grid: whoever reads them strides in space."""
    path, problem = described.path, described.problem
    rows = np.sort(np.concatenate(list(split.values())))
    given: dict[str, Any] = {
        "problem": problem.name,
        "parameters": described.parameters,
        "boundary": described.boundary,
    }
    if not problem.is_map:
        given |= {"time_stride": getattr(data, "time_stride"), "frames": data.kept_frames}  # noqa: B009
    # All that can be wrong is found before copying: strides that do not fit, models that do not fit.
    kept = read_trajectories(path, rows[:1], space_stride=data.space_stride, **given)
    grid, frames = kept.fields.shape[2:-1], kept.fields.shape[1]
    if misfit := configuration.misfit(name, grid, frames):
        raise DataError(
            f"keeps {frames} frames of {' x '.join(map(str, grid))} points with its strides, and {misfit}",
            where=str(path),
        )
    if min(described.parameters.values()) <= 0:
        raise DataError(
            f"has {described.parameters}, and the models are conditioned on its logarithm",
            where=str(path),
            fix="use a file with a positive parameter",
        )
    whole = read_trajectories(path, rows[:1], **given)
    original = rows if described.original_rows is None else described.original_rows[rows]
    with TrajectoryWriter(
        target,
        problem=problem.name,
        rows=len(rows),
        times=None if problem.is_map else whole.times,
        coordinates=whole.coordinates,
        parameters=described.parameters,
        boundary=described.boundary,
        original_rows=original,
    ) as writer:
        for block in _blocks(rows):
            fields = read_trajectories(path, block, **given).fields
            # Of a map's two frames the file holds the one in which everything is known.
            writer.append(fields[:, -1:] if problem.is_map else fields)
            done = int(np.searchsorted(rows, block[-1])) + 1
            log.info("%s: copied %d/%d trajectories", problem.name, done, len(rows))
    position = {int(row): index for index, row in enumerate(rows)}
    told = ", ".join(f"{key}={value:g}" for key, value in described.parameters.items())
    return {
        "problem": problem.name,
        "variables": data.used_variables(),
        "title": f"{problem.name} {told}",
        "version": described.data_version,
        "space_stride": data.space_stride,
        "frames": frames,
        "grid": list(grid),
        "rows": {part: [position[int(row)] for row in values] for part, values in split.items()},
        "original_rows": original.tolist(),
    }


def _merged(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ascending ranges; those that touch become one."""
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(ranges):
        if merged and merged[-1][1] == start:
            merged[-1] = (merged[-1][0], stop)
        else:
            merged.append((start, stop))
    return merged


def _blocks(rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(rows), _BLOCK):
        yield rows[start : start + _BLOCK]


class _Progress:
    """A line of progress now and then."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.started = self.told = time.monotonic()
        self.first: int | None = None

    def __call__(self, done: int, total: int | None) -> None:
        self.first = done if self.first is None else self.first
        now = time.monotonic()
        if now - self.told < _SECONDS_BETWEEN_LINES and done != total:
            return
        self.told = now
        rate = (done - self.first) / max(now - self.started, 1e-9)
        whole = "" if total is None else f"/{total / 1e6:.1f}"
        log.info("%s: fetched %.1f%s MB  %.1f MB/s", self.name, done / 1e6, whole, rate / 1e6)
