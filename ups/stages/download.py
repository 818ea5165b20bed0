"""download: trajectories of the run, in PDEBench's layout, and their splits."""

import json
import logging
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ups.config.schema import BurgersFile, GeneratedBurgers
from ups.data.dataset import SPLITS, TRAJECTORIES
from ups.data.pdebench import PDEBenchFile, TrajectoryWriter, inspect, read_trajectories
from ups.data.splits import split_rows
from ups.errors import DataError
from ups.physics.burgers import solve_burgers
from ups.physics.initial_conditions import cell_centres, sinusoidal_initial_conditions
from ups.runtime.request import Request

log = logging.getLogger(__name__)

_BLOCK = 256  # trajectories per solve and per write: bounds memory, and a line of progress


def run(request: Request) -> None:
    """Generate or copy the trajectories; write `trajectories.hdf5` and `splits.json`."""
    data = request.configuration.data
    request.output.mkdir(parents=True, exist_ok=True)
    generated = isinstance(data, GeneratedBurgers)
    description = _generate(request, data) if generated else _copy(request, data)
    (request.output / SPLITS).write_text(json.dumps(description))
    counts = {name: len(rows) for name, rows in description["rows"].items()}
    told = {key: description[key] for key in ("name", "version", "frames", "resolution")}
    request.finish({"trajectories": counts} | told)


def _generate(request: Request, data: GeneratedBurgers) -> dict:
    counts = data.trajectories.model_dump()
    rows = sum(counts.values())
    times = np.arange(data.frames) * data.frame_interval
    with TrajectoryWriter(
        request.output / TRAJECTORIES,
        rows=rows,
        times=times,
        coordinates=cell_centres(data.solver_resolution),
        parameters={"nu": data.nu},
        problem=data.equation,
        attributes={"generator": "universal-physics-stack", "seed": data.seed},
    ) as writer:
        started = time.monotonic()
        done = 0
        for solved in _solve_blocks(request, data, rows):
            writer.append(solved)
            done += len(solved)
            log.info("generated %d/%d trajectories  %.0f/s", done, rows, done / (time.monotonic() - started))
    split = split_rows(rows, counts, seed=data.seed, test_first=None)
    return {
        "name": f"{data.equation} nu={data.nu:g}",
        "version": f"generated (PDEBench scheme and distribution), {data.solver_resolution} cells, seed {data.seed}",
        "space_stride": data.solver_resolution // data.resolution,
        "frames": data.frames,
        "resolution": data.resolution,
        "rows": {name: values.tolist() for name, values in split.items()},
        "original_rows": list(range(rows)),
    }


def _solve_blocks(request: Request, data: GeneratedBurgers, rows: int) -> Iterator[NDArray[np.float32]]:
    """Solved blocks of trajectories, in order, one thread each.

    A step of the solver is forty small operations on a block that fits a core's cache: threads inside an
    operation would mostly wait for each other (measured: one thread is faster than two). A solved block is
    kept as a file, so that a killed generation goes on where it was.
    """
    execution = request.configuration.execution
    torch.set_num_threads(1)
    directory = request.work / "blocks"
    directory.mkdir(exist_ok=True)

    def solve(block: NDArray[np.int64]) -> Path:
        path = directory / f"{block[0]:08d}.npy"
        if path.exists():
            return path
        initial = sinusoidal_initial_conditions(block, seed=data.seed, resolution=data.solver_resolution)
        solved = solve_burgers(
            torch.from_numpy(initial).float().to(execution.device),
            nu=data.nu,
            frame_interval=data.frame_interval,
            frames=data.frames,
        )
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            np.save(file, solved.cpu().numpy())
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
        return path

    with ThreadPoolExecutor(execution.threads) as pool:
        for path in pool.map(solve, _blocks(np.arange(rows))):
            yield np.load(path, allow_pickle=False)


def _copy(request: Request, data: BurgersFile) -> dict:
    described = inspect(data.path, problem=data.equation)
    strides = {"space_stride": data.space_stride, "time_stride": data.time_stride, "frames": data.frames}
    split = _split(described, data)
    rows = np.sort(np.concatenate(list(split.values())))
    # All that can be wrong is found before copying: strides that do not fit, models that do not fit.
    kept = read_trajectories(data.path, rows[:1], **strides)
    if problem := request.configuration.misfit(len(kept.coordinates), len(kept.times)):
        raise DataError(
            f"keeps {len(kept.times)} frames of {len(kept.coordinates)} points with data.time_stride "
            f"{data.time_stride} and data.space_stride {data.space_stride}, and {problem}",
            where=data.path,
        )
    if min(described.parameters.values()) <= 0:
        raise DataError(
            f"has {described.parameters}, and the models are conditioned on its logarithm",
            where=data.path,
            fix="use a file with a positive parameter",
        )
    # The layout holds cell centres, so the copy is on the file's own grid; whoever reads it strides in space.
    whole = read_trajectories(data.path, rows[:1], time_stride=data.time_stride, frames=data.frames)
    with TrajectoryWriter(
        request.output / TRAJECTORIES,
        rows=len(rows),
        times=whole.times,
        coordinates=whole.coordinates,
        parameters=described.parameters,
        problem=data.equation,
    ) as writer:
        for block in _blocks(rows):
            writer.append(
                read_trajectories(data.path, block, time_stride=data.time_stride, frames=data.frames).fields
            )
            log.info("copied %d/%d trajectories", int(np.searchsorted(rows, block[-1])) + 1, len(rows))
    position = {int(row): index for index, row in enumerate(rows)}
    return {
        "name": f"{data.equation} nu={described.parameters['nu']:g}",
        "version": described.data_version,
        "space_stride": data.space_stride,
        "frames": len(kept.times),
        "resolution": len(kept.coordinates),
        "rows": {name: [position[int(row)] for row in values] for name, values in split.items()},
        "original_rows": rows.tolist(),
    }


def _split(described: PDEBenchFile, data: BurgersFile) -> dict[str, NDArray[np.int64]]:
    try:
        return split_rows(
            described.rows, data.trajectories.model_dump(), seed=data.seed, test_first=data.test_first
        )
    except DataError as error:
        raise DataError(f"data.trajectories do not fit: {error}", where=data.path) from error


def _blocks(rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(rows), _BLOCK):
        yield rows[start : start + _BLOCK]
