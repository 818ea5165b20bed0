"""Trajectories per second of the data generators; for Burgers beside a classical reference, at equal accuracy.

Every case is solved as the chain solves it: float32, PDEBench's grid and frames, blocks of rows side by side, one
thread each. Rates are wall-clock, of the faster of two runs; the runs of a generator and of its reference take
turns, so that neither has the quieter machine.

Burgers' reference is `ups.benchmarks.explicit_burgers`: the same discretisation in NumPy, on as many threads,
diffusion explicit at its stability limit, and the same batch. At a large viscosity all frames would take minutes.
So it is timed on as many frames as the budget allows, spread evenly over the trajectory, each from the generator's
state at the frame before, and scaled to all of them: `reference_frames` tells how many. A generator without a
reference may be timed on its first `timed_frames` only; Burgers' always on all.

Errors: both are compared with 4096 cells of the generator's scheme in float64, averaged over every four, from the
same cell averages; mean over rows of the L2 norm over the reference's frames, without the first, and all cells,
relative to that of the fine solution. As many frames as the budget allows: `error_frames`.

Rejected: to time the reference on the first frames only, which are the fastest flows and, where advection limits
its step, the most expensive ones.
"""

import logging
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ups.benchmarks.explicit_burgers import solve_burgers_explicit
from ups.physics.advection import solve_advection
from ups.physics.burgers import solve_burgers
from ups.physics.compressible import solve_compressible
from ups.physics.compressible_samples import compressible_initial_states
from ups.physics.darcy import relax_darcy
from ups.physics.darcy_samples import darcy_coefficients, darcy_initial_states
from ups.physics.initial_conditions import sinusoidal_initial_conditions

log = logging.getLogger(__name__)

_SEED = 1
_POINTS = 1024
_DARCY_POINTS = 128
_FRAME_INTERVAL = 0.01
_FRAMES = 201
_COMPRESSIBLE_FRAMES = 101
_FINER = 4
_ERROR_ROWS = 8
_ROWS_PER_THREAD = 128  # few rows would measure what it costs to launch operations, on either side
_RUNS = 2
_REFERENCE_NU = 0.01  # where generators of other equations are compared with Burgers' reference

# What is compared with the reference.
_COMPARED = (
    "reference",
    "reference_frames",
    "reference_seconds",
    "reference_trajectories_per_second",
    "ratio",
    "error",
    "reference_error",
    "error_rows",
    "error_frames",
)

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class _Case:
    """A generator under the name of its record."""

    name: str
    points: int
    frames: int
    rows_per_thread: int
    inputs: Callable[[Rows], tuple[Tensor, ...]]
    """What the solver starts from: not part of the time."""
    solve: Callable[..., Tensor]
    """Of the inputs, then the number of frames."""
    nu: float | None = None
    """Of Burgers' equation, which has a reference."""


def measure_generators(*, threads: int, seconds: float, device: str) -> list[dict[str, Any]]:
    """Rates of all generators, a plain record each.

    Args:
        threads: blocks of rows that are solved at a time, one thread each; of the NumPy reference too.
        seconds: what the runs of one case may take, the reference's as much again and its errors too; bounds the
            number of frames that are timed. One run of a whole batch takes what it takes: at two threads on a quiet
            machine a case takes about ten seconds at least.
        device: the generators' device; the reference is always on the CPU.

    Returns:
        For each case: `case`, `device`, `threads`, `rows`, `points` (a side), `frames` (of a trajectory),
        `timed_frames`, `seconds` (the faster run), `trajectories_per_second`; and, None but for Burgers,
        `reference` (its name), `reference_frames` and `reference_seconds` (timed), `reference_trajectories_per_second`,
        `ratio` of the two rates, `error`, `reference_error`, `error_rows` and `error_frames`.

    Raises:
        ValueError: an argument is out of its range.
    """
    if threads < 1:
        raise ValueError(f"threads must be at least 1, got {threads}")
    if not (math.isfinite(seconds) and seconds > 0):
        raise ValueError(f"seconds must be finite and positive, got {seconds}")
    torch_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        cases, records = _cases(), []
        for number, case in enumerate(cases, start=1):
            log.info("measuring %d/%d: %s", number, len(cases), case.name)
            record = _measure(case, threads, seconds, torch.device(device))
            log.info("%s: %.3g trajectories/s", case.name, record["trajectories_per_second"])
            records.append(record)
        return records
    finally:
        torch.set_num_threads(torch_threads)


def over_reference(
    names: Sequence[str], *, part: float, frames: int, threads: int, device: str
) -> dict[str, float]:
    """Seconds of generators over those of Burgers' reference, which is timed before and after each; by the names of their cases.

    Args:
        part: of the rows of a case that are solved.
        frames: at most, of the reference exactly.
    """
    cases = {case.name: case for case in _cases()}
    rows = np.arange(max(1, round(part * _ROWS_PER_THREAD)) * threads)
    initial = sinusoidal_initial_conditions(rows, seed=_SEED, resolution=_POINTS).astype(np.float32)

    def reference() -> float:
        return _seconds(lambda: _reference(initial, _REFERENCE_NU, frames, threads))

    reference()  # the first call allocates
    ratios, before = {}, reference()
    for name in names:
        case = cases[name]
        count = max(1, round(part * case.rows_per_thread)) * threads
        batch = tuple(value.to(device) for value in case.inputs(np.arange(count)))

        def solve(case: _Case = case, batch: tuple[Tensor, ...] = batch) -> Tensor:
            return side_by_side(lambda *rows: case.solve(*rows, min(frames, case.frames)), batch, threads)

        solve()
        taken, after = _seconds(solve), reference()
        ratios[name] = 2 * taken / (before + after)
        before = after
    return ratios


def _cases() -> list[_Case]:
    def waves(rows: Rows) -> tuple[Tensor]:
        return (_tensor(sinusoidal_initial_conditions(rows, seed=_SEED, resolution=_POINTS)),)

    def darcy_inputs(rows: Rows) -> tuple[Tensor, Tensor]:
        arguments = {"seed": _SEED, "resolution": _DARCY_POINTS}
        return (
            _tensor(darcy_coefficients(rows, **arguments)),
            _tensor(darcy_initial_states(rows, **arguments)),
        )

    def gas(rows: Rows) -> tuple[Tensor]:
        states = compressible_initial_states(rows, seed=_SEED, resolution=_POINTS, boundary="periodic")
        return (_tensor(states),)

    def burgers(nu: float) -> _Case:
        def solve(initial: Tensor, frames: int) -> Tensor:
            return solve_burgers(initial, nu=nu, frame_interval=_FRAME_INTERVAL, frames=frames)

        return _Case(f"burgers1d nu={nu:g}", _POINTS, _FRAMES, _ROWS_PER_THREAD, waves, solve, nu=nu)

    def advection(initial: Tensor, frames: int) -> Tensor:
        return solve_advection(initial, beta=1.0, frame_interval=_FRAME_INTERVAL, frames=frames)

    def darcy(coefficient: Tensor, initial: Tensor, _: int) -> Tensor:
        return relax_darcy(coefficient, initial, forcing=1.0)

    def compressible(eta: float) -> _Case:
        def solve(initial: Tensor, frames: int) -> Tensor:
            return solve_compressible(
                initial,
                eta=eta,
                zeta=eta,
                boundary="periodic",
                frame_interval=_FRAME_INTERVAL,
                frames=frames,
            )

        rows_per_thread = _ROWS_PER_THREAD // 4
        return _Case(
            f"compressible1d eta={eta:g}", _POINTS, _COMPRESSIBLE_FRAMES, rows_per_thread, gas, solve
        )

    return [
        *(burgers(nu) for nu in (0.001, 0.01, 0.1)),
        _Case("advection1d beta=1", _POINTS, _FRAMES, _ROWS_PER_THREAD, waves, advection),
        _Case("darcy2d beta=1", _DARCY_POINTS, 1, _ROWS_PER_THREAD // 8, darcy_inputs, darcy),
        *(compressible(eta) for eta in (1e-8, 0.1)),
    ]


def _measure(case: _Case, threads: int, seconds: float, device: torch.device) -> dict[str, Any]:
    rows = case.rows_per_thread * threads
    batch = tuple(value.to(device) for value in case.inputs(np.arange(rows)))

    def solve(frames: int) -> Tensor:
        return side_by_side(lambda *part: case.solve(*part, frames), batch, threads)

    frames, nu = case.frames, case.nu
    if nu is None and frames > 1:
        frames = 1 + _affordable(lambda: solve(2), seconds / _RUNS, case.frames - 1)
    starts = [] if nu is None else _reference_starts(solve(frames), nu, threads, seconds / _RUNS)

    generator_runs, reference_runs = [], []
    for _ in range(_RUNS):
        generator_runs.append(_seconds(lambda: solve(frames)))
        if nu is not None:
            reference_runs.append(_seconds(lambda: _reference_from(starts, nu, threads)))

    rate = rows / min(generator_runs) * max(1, frames - 1) / max(1, case.frames - 1)
    record = {
        "case": case.name,
        "device": str(device),
        "threads": threads,
        "rows": rows,
        "points": case.points,
        "frames": case.frames,
        "timed_frames": frames,
        "seconds": min(generator_runs),
        "trajectories_per_second": rate,
    }
    if nu is None:
        return record | dict.fromkeys(_COMPARED)
    reference_rate = rows / min(reference_runs) * len(starts) / (case.frames - 1)
    compared = (
        "NumPy, explicit diffusion at its stability limit",
        len(starts),
        min(reference_runs),
        reference_rate,
        rate / reference_rate,
        *_errors(case, nu, threads, seconds, device),
    )
    return record | dict(zip(_COMPARED, compared, strict=True))


def _reference(initial: NDArray, nu: float, frames: int, threads: int) -> NDArray:
    return solve_burgers_explicit(
        initial, nu=nu, frame_interval=_FRAME_INTERVAL, frames=frames, threads=threads
    )


def _reference_starts(trajectories: Tensor, nu: float, threads: int, seconds: float) -> list[NDArray]:
    """States [n, x] from which the reference is timed for one frame each, spread evenly over the trajectories."""
    fields = trajectories.cpu().numpy()
    steps = fields.shape[1] - 1
    count = _affordable(lambda: _reference(fields[:, steps // 2], nu, 2, threads), seconds, steps)
    return [fields[:, (2 * place + 1) * steps // (2 * count)] for place in range(count)]


def _reference_from(starts: list[NDArray], nu: float, threads: int) -> None:
    for start in starts:
        _reference(start, nu, 2, threads)


def _errors(
    case: _Case, nu: float, threads: int, seconds: float, device: torch.device
) -> tuple[float, float, int, int]:
    """Of the generator and of the reference, rows and frames; convention in the file's docstring."""
    fine = torch.from_numpy(
        sinusoidal_initial_conditions(range(_ERROR_ROWS), seed=_SEED, resolution=_FINER * _POINTS)
    )
    initial = fine.reshape(_ERROR_ROWS, _POINTS, _FINER).mean(dim=2).float()
    coarse = initial.numpy()
    frames = 1 + _affordable(lambda: _reference(coarse, nu, 2, threads), seconds, _FRAMES - 1)

    def truth(part: Tensor) -> Tensor:
        finely = solve_burgers(part, nu=nu, frame_interval=_FRAME_INTERVAL, frames=frames)
        return finely.reshape(len(part), frames, _POINTS, _FINER).mean(dim=3)

    exact = side_by_side(truth, (fine.to(device),), threads).cpu()[:, 1:]

    def error(trajectories: Tensor) -> float:
        difference = (trajectories[:, 1:].double() - exact).flatten(1).norm(dim=1)
        return float((difference / exact.flatten(1).norm(dim=1)).mean())

    solved = side_by_side(lambda part: case.solve(part, frames), (initial.to(device),), threads).cpu()
    reference = torch.from_numpy(_reference(coarse, nu, frames, threads))
    return error(solved), error(reference), _ERROR_ROWS, frames


def _affordable(once: Callable[[], object], seconds: float, most: int) -> int:
    """How often `once` fits into `seconds`, at least once and at most `most` times."""
    return min(most, max(1, int(seconds / _seconds(once))))


def side_by_side(solve: Callable[..., Tensor], inputs: tuple[Tensor, ...], threads: int) -> Tensor:
    """`solve` of as many parts of the rows as there are threads."""
    parts = [value.chunk(threads) for value in inputs]
    with ThreadPoolExecutor(threads) as pool:
        solved = torch.cat(list(pool.map(solve, *parts)))
    if solved.is_cuda:
        torch.cuda.synchronize(solved.device)
    return solved


def _seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def _tensor(values: NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(values).float()
