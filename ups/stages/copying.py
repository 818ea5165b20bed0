"""Trajectories taken out of a file in PDEBench's layout."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ups.artifacts.files import file_sums
from ups.artifacts.sums import recorded_content
from ups.config import Configuration
from ups.config.data import DataFile, PublishedData
from ups.data.pdebench import PDEBenchFile, inspect, read_trajectories
from ups.data.pdebench_writer import TrajectoryWriter
from ups.data.splits import split_rows
from ups.errors import DataError, IntegrityError
from ups.runtime.request import Request

log = logging.getLogger(__name__)

Split = dict[str, NDArray[np.int64]]

_BLOCK = 256  # trajectories read and written together


def make(name: str, data: DataFile, request: Request, target: Path) -> dict[str, Any]:
    """Copy the chosen rows of the user's file; what `splits.json` says of them.

    Raises:
        IntegrityError: the file's bytes are not those it had when it was first used under this root.
    """
    path = Path(data.path)
    recorded = recorded_content(path, request.root)
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
    return copy_rows(name, data, described, split, request.configuration, target)


def copy_rows(
    name: str,
    data: DataFile | PublishedData,
    described: PDEBenchFile,
    split: Split,
    configuration: Configuration,
    target: Path,
) -> dict[str, Any]:
    """Write the rows of a split on the file's own grid, for whoever reads them strides in space; what `splits.json` says
    of them."""
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


def _blocks(rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(rows), _BLOCK):
        yield rows[start : start + _BLOCK]
