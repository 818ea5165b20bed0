"""Trajectories solved on this machine, block by block."""

import logging
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ups.artifacts.files import publish
from ups.data.layout import cell_centres
from ups.data.pdebench_writer import TrajectoryWriter
from ups.data.splits import TRAJECTORIES, generated_rows
from ups.physics.generators import Generator, Rows, Solve, generator_of
from ups.problems.generated import Generated
from ups.runtime.request import Request

log = logging.getLogger(__name__)

# Rows per solve and per write: they bound memory, and each is a line of progress. A map's solve is long on a CPU; a GPU
# takes as long for a few rows as for thousands, for it waits for its launches.
_BLOCK, _BLOCK_MAP, _BLOCK_GPU = 256, 50, 2048


def make(
    name: str, data: Generated, request: Request, missing: Mapping[str, Path]
) -> dict[str, dict[str, Any]]:
    """Solve the trajectories of some splits of a run.

    missing: the work directory of each, see `ups.stages.download`.

    Returns:
        What each split's description says.
    """
    execution, described = request.configuration.execution, {}
    for split, work in missing.items():
        rows = generated_rows(split, getattr(data.counts, split))
        generated = generate_file(
            data,
            rows,
            work / "output" / TRAJECTORIES,
            work / "blocks",
            device=execution.device,
            threads=execution.threads,
        )
        parameters = ", ".join(f"{key}={value:g}" for key, value in generated.parameters.items())
        described[split] = {
            "title": f"{data.problem.name} {parameters}",
            "version": f"generated ({generated.distribution}), {data.solver_resolution} cells, seed {data.seed}",
            "rows": rows.tolist(),
        }
    return described


def generate_file(
    data: Generated, rows: Rows, path: Path, blocks: Path, *, device: str, threads: int
) -> Generator:
    """Solve trajectories into a file in PDEBench's layout; returns how.

    Args:
        data: what to solve; its numbers per split are of no meaning here.
        rows: numbers of the trajectories, ascending.
        path: the file to make, on the solver's grid.
        blocks: directory of solved blocks, so that a killed generation goes on where it was.
        threads: blocks solved at a time on a CPU, one thread each. A step of a solver is forty small operations on
            a block that fits a core's cache: threads inside an operation would mostly wait for each other
            (measured: one thread is faster than two). On a GPU one block is solved at a time: two threads halve
            each other's pace, and the first use of its linear algebra by two threads at once fails.
    """
    problem, generator = data.problem, generator_of(data)
    times = None if problem.is_map else np.arange(data.kept_frames) * getattr(data, "frame_interval")  # noqa: B009
    provenance = {"generator": "universal-physics-stack", "seed": data.seed}
    torch.set_num_threads(1)
    started, done = time.monotonic(), 0
    with TrajectoryWriter(
        path,
        problem=problem.name,
        rows=len(rows),
        times=times,
        coordinates=[cell_centres(data.solver_resolution, domain) for domain in problem.domain],
        parameters=generator.parameters,
        boundary=generator.boundary,
        attributes=provenance,
        original_rows=rows,
    ) as writer:
        block = _BLOCK_MAP if problem.is_map else _BLOCK
        if device == "cuda":
            block, threads = _BLOCK_GPU, 1
        for solved in _solved(generator.solve, rows, blocks, block, device, threads):
            writer.append(solved)
            done += len(solved)
            rate = done / (time.monotonic() - started)
            log.info("%s: generated %d/%d trajectories  %.3g/s", problem.name, done, len(rows), rate)
    return generator


def _solved(
    solve: Solve, rows: Rows, directory: Path, block: int, device: str, threads: int
) -> Iterator[NDArray[np.float32]]:
    """Solved blocks in order; each is a file until all are done."""
    directory.mkdir(parents=True, exist_ok=True)

    def solve_block(first: int) -> Path:
        path = directory / f"{first:08d}.npy"
        if path.exists():
            return path
        solved = solve(rows[first : first + block], torch.device(device))
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            np.save(file, solved.cpu().numpy())
        publish(partial, path)
        return path

    with ThreadPoolExecutor(threads) as pool:
        for path in pool.map(solve_block, range(0, len(rows), block)):
            yield np.load(path, allow_pickle=False)
