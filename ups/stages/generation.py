"""Trajectories solved on this machine, block by block."""

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ups.artifacts.files import sync_file
from ups.config.data import (
    Generated,
    GeneratedAdvection,
    GeneratedBurgers,
    GeneratedCompressible,
    GeneratedDarcy,
)
from ups.data.layout import cell_centres
from ups.data.pdebench_writer import TrajectoryWriter
from ups.data.splits import split_rows
from ups.physics.advection import solve_advection
from ups.physics.burgers import solve_burgers
from ups.physics.compressible import solve_compressible
from ups.physics.compressible_samples import compressible_initial_states
from ups.physics.darcy import relax_darcy
from ups.physics.darcy_samples import darcy_coefficients, darcy_initial_states
from ups.physics.initial_conditions import sinusoidal_initial_conditions
from ups.physics.upwind_advection import solve_upwind_advection
from ups.problems import Boundary

log = logging.getLogger(__name__)

Rows = NDArray[np.int64]
Solve = Callable[[Rows, torch.device], Tensor]
"""Row numbers [n] to solved fields [n, t, *grid, C] as the file has them (of a map one frame)."""

_BLOCK = 256  # trajectories per solve and per write: bounds memory, and a line of progress
_BLOCK_MAP = 50  # of a map, whose solve is long


def generate(data: Generated, path: Path, blocks: Path, *, device: str, threads: int) -> dict[str, Any]:
    """Solve the trajectories of a run; what `splits.json` says of them. Arguments as of `generate_file`."""
    counts = data.counts
    parameters = generate_file(data, counts.total, path, blocks, device=device, threads=threads)
    split = split_rows(counts.total, counts.model_dump(), seed=data.seed, test_first=None)
    told = ", ".join(f"{name}={value:g}" for name, value in parameters.items())
    whose = "our own distribution" if isinstance(data, GeneratedCompressible) else "PDEBench distribution"
    if isinstance(data, GeneratedAdvection):
        whose += ", exact" if data.scheme == "exact" else " and scheme"
    return {
        "problem": data.problem.name,
        "variables": data.used_variables(),
        "title": f"{data.problem.name} {told}",
        "version": f"generated ({whose}), {data.solver_resolution} cells, seed {data.seed}",
        "space_stride": data.solver_resolution // data.resolution,
        "frames": data.kept_frames,
        "grid": list(data.kept_grid),
        "rows": {name: values.tolist() for name, values in split.items()},
        "original_rows": list(range(counts.total)),
    }


def generate_file(
    data: Generated, rows: int, path: Path, blocks: Path, *, device: str, threads: int
) -> dict[str, float]:
    """Solve trajectories 0 to rows - 1 into a file in PDEBench's layout; returns the equation's parameters.

    Args:
        data: what to solve; its numbers per split are of no meaning here.
        path: the file to make, on the solver's grid.
        blocks: directory of solved blocks, so that a killed generation goes on where it was.
        threads: blocks solved at a time, one thread each. A step of a solver is forty small operations on a
            block that fits a core's cache: threads inside an operation would mostly wait for each other
            (measured: one thread is faster than two).
    """
    problem = data.problem
    solve, parameters, boundary = _solver(data)
    times = None if problem.is_map else np.arange(data.kept_frames) * getattr(data, "frame_interval")  # noqa: B009
    provenance = {"generator": "universal-physics-stack", "seed": data.seed}
    torch.set_num_threads(1)
    started, done = time.monotonic(), 0
    with TrajectoryWriter(
        path,
        problem=problem.name,
        rows=rows,
        times=times,
        coordinates=[cell_centres(data.solver_resolution, domain) for domain in problem.domain],
        parameters=parameters,
        boundary=boundary,
        attributes=provenance,
    ) as writer:
        for solved in _solved(solve, rows, blocks, _BLOCK_MAP if problem.is_map else _BLOCK, device, threads):
            writer.append(solved)
            done += len(solved)
            rate = done / (time.monotonic() - started)
            log.info("%s: generated %d/%d trajectories  %.3g/s", problem.name, done, rows, rate)
    return parameters


def solve_rows(data: Generated, rows: Rows, device: torch.device) -> Tensor:
    """Solved fields [n, t, *grid, C] of some row numbers, on the solver's grid."""
    solve, _, _ = _solver(data)
    return solve(rows, device)


def _solver(data: Generated) -> tuple[Solve, dict[str, float], Boundary]:
    """How rows of a problem are solved, its parameters and its boundary."""
    cells, seed = data.solver_resolution, data.seed
    match data:
        case GeneratedBurgers():
            return _from_sinusoids(data, partial(solve_burgers, nu=data.nu)), {"nu": data.nu}, "periodic"
        case GeneratedAdvection():
            solver = solve_advection if data.scheme == "exact" else solve_upwind_advection
            return _from_sinusoids(data, partial(solver, beta=data.beta)), {"beta": data.beta}, "periodic"
        case GeneratedDarcy():

            def darcy(rows: Rows, device: torch.device) -> Tensor:
                coefficient = torch.from_numpy(darcy_coefficients(rows, seed=seed, resolution=cells)).to(
                    device
                )
                initial = torch.from_numpy(darcy_initial_states(rows, seed=seed, resolution=cells)).to(device)
                solution = relax_darcy(coefficient.float(), initial.float(), forcing=data.beta)
                return torch.stack([coefficient.float(), solution], dim=-1).unsqueeze(1)

            return darcy, {"beta": data.beta}, "dirichlet"
        case GeneratedCompressible():

            def compressible(rows: Rows, device: torch.device) -> Tensor:
                initial = compressible_initial_states(
                    rows, seed=seed, resolution=cells, boundary=data.boundary
                )
                return solve_compressible(
                    torch.from_numpy(initial).float().to(device),
                    eta=data.eta,
                    zeta=data.eta,
                    boundary=data.boundary,
                    frame_interval=data.frame_interval,
                    frames=data.frames,
                )

            return compressible, {"eta": data.eta, "zeta": data.eta}, data.boundary
        case _:
            raise TypeError(f"no solver for {type(data).__name__}")


def _from_sinusoids(data: GeneratedBurgers | GeneratedAdvection, solver: Callable[..., Tensor]) -> Solve:
    """A periodic problem of one field from PDEBench's initial states."""

    def solve(rows: Rows, device: torch.device) -> Tensor:
        initial = sinusoidal_initial_conditions(rows, seed=data.seed, resolution=data.solver_resolution)
        state = torch.from_numpy(data.amplitude * initial + data.offset).float().to(device)
        return solver(state, frame_interval=data.frame_interval, frames=data.frames).unsqueeze(-1)

    return solve


def _solved(
    solve: Solve, rows: int, directory: Path, block: int, device: str, threads: int
) -> Iterator[NDArray[np.float32]]:
    """Solved blocks in order; each is a file until all are done."""
    directory.mkdir(parents=True, exist_ok=True)

    def solve_block(first: int) -> Path:
        path = directory / f"{first:08d}.npy"
        if path.exists():
            return path
        solved = solve(np.arange(first, min(rows, first + block)), torch.device(device))
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            np.save(file, solved.cpu().numpy())
        sync_file(partial)
        partial.rename(path)
        return path

    with ThreadPoolExecutor(threads) as pool:
        for path in pool.map(solve_block, range(0, rows, block)):
            yield np.load(path, allow_pickle=False)
