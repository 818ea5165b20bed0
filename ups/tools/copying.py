"""Trajectories taken out of a file in PDEBench's layout."""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ups.artifacts.checksums import file_checksums
from ups.artifacts.input_files import recorded_content
from ups.config import Configuration
from ups.config.data import DataFile, PublishedData
from ups.data.pdebench import PDEBenchFile, inspect, read_trajectories
from ups.data.pdebench_writer import TrajectoryWriter
from ups.data.splits import TRAJECTORIES, split_rows
from ups.errors import DataError, IntegrityError
from ups.runtime.request import Request

log = logging.getLogger(__name__)

_BLOCK = 256  # trajectories read and written together


def make(
    name: str, data: DataFile, request: Request, missing: Mapping[str, Path]
) -> dict[str, dict[str, Any]]:
    """Copy some splits of the user's file; see `ups.tools.generation.make`.

    Raises:
        IntegrityError: the file's bytes are not those it had when it was first used under this root.
    """
    path = Path(data.path)
    recorded = recorded_content(path, request.root)
    if recorded is not None and file_checksums(path).sha256 != recorded:
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
    return copy_splits(name, data, described, split, request.configuration, missing)


def copy_splits(
    name: str,
    data: DataFile | PublishedData,
    described: PDEBenchFile,
    splits: Mapping[str, NDArray[np.int64]],
    configuration: Configuration,
    missing: Mapping[str, Path],
) -> dict[str, dict[str, Any]]:
    """Write the rows of the missing splits on the file's own grid; readers apply the stride in space.

    splits: rows of the file, ascending. Returns what each description says.
    """
    path, problem = described.path, described.problem
    given: dict[str, Any] = {
        "problem": problem.name,
        "parameters": described.parameters,
        "boundary": described.boundary,
    }
    if not problem.is_map:
        given |= {"time_stride": getattr(data, "time_stride"), "frames": data.kept_frames}  # noqa: B009
    # All that can be wrong is found before copying: strides that do not fit, models that do not fit.
    first = splits[next(iter(missing))][:1]
    kept = read_trajectories(path, first, space_stride=data.space_stride, **given)
    grid, frames = kept.fields.shape[2:-1], kept.fields.shape[1]
    if unfit := configuration.grid_problem(name, grid, frames):
        raise DataError(
            f"keeps {frames} frames of {' x '.join(map(str, grid))} points with its strides, and {unfit}",
            where=str(path),
        )
    if min(described.parameters.values()) <= 0:
        raise DataError(
            f"has {described.parameters}, and the models are conditioned on its logarithm",
            where=str(path),
            fix="use a file with a positive parameter",
        )
    whole = read_trajectories(path, first, **given)
    parameters = ", ".join(f"{key}={value:g}" for key, value in described.parameters.items())
    made = {}
    for split, work in missing.items():
        rows = splits[split]
        original = rows if described.original_rows is None else described.original_rows[rows]
        with TrajectoryWriter(
            work / "output" / TRAJECTORIES,
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
                log.info("%s: copied %d/%d %s trajectories", problem.name, done, len(rows), split)
        made[split] = {
            "title": f"{problem.name} {parameters}",
            "version": described.data_version,
            "rows": original.tolist(),
        }
    return made


def _blocks(rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(rows), _BLOCK):
        yield rows[start : start + _BLOCK]
