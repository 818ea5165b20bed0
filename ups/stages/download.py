"""download: trajectories of the run, in PDEBench's layout, and their splits."""

import json
import logging
import time
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from ups.config.schema import BurgersFile, GeneratedBurgers
from ups.data.dataset import SPLITS, TRAJECTORIES
from ups.data.pdebench import TrajectoryWriter, inspect, read_trajectories
from ups.data.splits import split_rows
from ups.physics.burgers import solve_burgers
from ups.physics.initial_conditions import cell_centres, sinusoidal_initial_conditions
from ups.runtime.request import Request

log = logging.getLogger(__name__)

_BLOCK = 256  # trajectories per solve and per write: bounds memory, and a line of progress


def run(request: Request) -> None:
    """Generate or copy the trajectories; write `trajectories.hdf5` and `splits.json`."""
    data = request.configuration.data
    torch.set_num_threads(request.configuration.execution.threads)
    request.output.mkdir(parents=True, exist_ok=True)
    if isinstance(data, GeneratedBurgers):
        description = _generate(request, data)
    else:
        description = _copy(request, data)
    (request.output / SPLITS).write_text(json.dumps(description))
    counts = {name: len(rows) for name, rows in description["rows"].items()}
    request.finish({"trajectories": counts, "name": description["name"], "version": description["version"]})


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
        attributes={"generator": "universal-physics-stack", "seed": data.seed},
    ) as writer:
        started = time.monotonic()
        for block in _blocks(np.arange(rows)):
            initial = sinusoidal_initial_conditions(block, seed=data.seed, resolution=data.solver_resolution)
            solved = solve_burgers(
                torch.from_numpy(initial).float().to(request.configuration.execution.device),
                nu=data.nu,
                frame_interval=data.frame_interval,
                frames=data.frames,
            )
            writer.append(solved.cpu().numpy())
            done = int(block[-1]) + 1
            log.info("generated %d/%d trajectories  %.0f/s", done, rows, done / (time.monotonic() - started))
    split = split_rows(rows, counts, seed=data.seed, test_first=None)
    return {
        "name": f"burgers1d nu={data.nu:g}",
        "version": f"generated (PDEBench scheme and distribution), {data.solver_resolution} cells, seed {data.seed}",
        "space_stride": data.solver_resolution // data.resolution,
        "rows": {name: values.tolist() for name, values in split.items()},
        "original_rows": list(range(rows)),
    }


def _copy(request: Request, data: BurgersFile) -> dict:
    described = inspect(data.path)
    counts = data.trajectories.model_dump()
    split = split_rows(described.rows, counts, seed=data.seed, test_first=data.test_first)
    rows = np.sort(np.concatenate(list(split.values())))
    first = read_trajectories(data.path, rows[:1], time_stride=data.time_stride, frames=data.frames)
    # Fail before copying where the stride does not fit the grid.
    read_trajectories(data.path, rows[:1], space_stride=data.space_stride, time_stride=data.time_stride, frames=data.frames)
    with TrajectoryWriter(
        request.output / TRAJECTORIES,
        rows=len(rows),
        times=first.times,
        coordinates=first.coordinates,
        parameters=described.parameters,
    ) as writer:
        for block in _blocks(rows):
            writer.append(
                read_trajectories(data.path, block, time_stride=data.time_stride, frames=data.frames).fields
            )
            log.info("copied %d/%d trajectories", int(np.searchsorted(rows, block[-1])) + 1, len(rows))
    position = {int(row): index for index, row in enumerate(rows)}
    return {
        "name": f"burgers1d nu={described.parameters['nu']:g}",
        "version": described.data_version,
        "space_stride": data.space_stride,
        "rows": {name: [position[int(row)] for row in values] for name, values in split.items()},
        "original_rows": rows.tolist(),
    }


def _blocks(rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(rows), _BLOCK):
        yield rows[start : start + _BLOCK]
