"""Score a finished run, or an exported surrogate, on any file in PDEBench's layout.

No stage of the chain: it seals nothing. `python -m ups.tools.score_file --work DIR` reads DIR/request.json
{"source", "file", "rows", "problem", "at_file_resolution", "device", "threads"} and ends with DIR/outcome.json, whose
summary has the records.
"""

import logging
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ups.data.dataset import Dataset
from ups.data.pdebench import PDEBenchFile, inspect, read_trajectories
from ups.errors import ConfigurationError, DataError
from ups.evaluation.conditioning import Conditioner, conditioned_rows
from ups.evaluation.evaluation_set import evaluation_set
from ups.evaluation.opening import open_trained
from ups.evaluation.result_records import result_records
from ups.evaluation.result_table import score_all
from ups.evaluation.trained import NOT_KEPT, Trained
from ups.evaluation.usage import Usage
from ups.problems import Variables
from ups.runtime.ranks import join_ranks
from ups.tools.tool_main import tool_main

log = logging.getLogger(__name__)

SPLIT = "file"
"""What the records call the rows of a file."""


@dataclass(frozen=True)
class Strides:
    """How a file is thinned to a model's grid and time step."""

    space: int
    time: int


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Score, and return the records."""
    with join_ranks(request["device"], request["threads"]) as ranks:
        records = score_file(
            open_trained(Path(request["source"]), request["device"]),
            Path(request["file"]),
            rows=request["rows"],
            problem=request["problem"],
            at_file_resolution=request["at_file_resolution"],
            device=ranks.device,
            threads=request["threads"],
        )
    return {"records": records}


def score_file(
    trained: Trained,
    path: Path,
    *,
    rows: int,
    problem: str | None,
    at_file_resolution: bool,
    device: torch.device,
    threads: int,
) -> list[dict[str, Any]]:
    """Records of all models on the first `rows` trajectories of a file (all, if it has fewer).

    Args:
        problem: of the run, that the file belongs to; None: recognised by its layout.
        at_file_resolution: decode and score on the file's own grid, where that is finer than the models'; see
            `ups.evaluation.finer_grid`. The encoder sees the strided field either way.
        device: that the networks are on.
        threads: of this process, for the records.

    Raises:
        DataError: the file is malformed, belongs to no problem of the run, or its grid or frames do not contain
            the models'.
        ConfigurationError: the run has no such problem, or the file may belong to several.
    """
    name, described = recognise(path, trained.usages, problem)
    usage = trained.usages[name]
    strides = _strides_for(described, usage)
    stride = strides.space if at_file_resolution else 1
    dataset = _read(
        described,
        rows=rows,
        variables=usage.shape.variables,
        space_stride=strides.space // stride,
        time_stride=strides.time,
        most_frames=usage.frames,
    )
    _warn(described, usage)
    data = evaluation_set(
        name,
        dataset,
        SPLIT,
        device,
        seed=trained.seed,
        threads=threads,
        initial_steps=trained.evaluation.pdebench_initial_steps,
        mean=trained.means.get(name),
        stride=stride,
    )
    settings, fitted = trained.evaluation, trained.fits.get(name)
    if fitted is None and settings.conditioning is not None:
        log.warning("%s: no row ttc: %s", name, NOT_KEPT)
    elif fitted is not None and (stride > 1 or data.inputs.steps != len(fitted.gate)):
        log.warning("%s: no row ttc: it was fitted on another grid or number of steps", name)
        fitted = None
    results = score_all(trained.surrogate, data, batch_size=settings.batch_size, seed=settings.seed)
    if fitted is not None:
        results += conditioned_rows(Conditioner(trained.surrogate, data.inputs, settings), fitted, data)[0]
    return result_records(results, data.setting)


def recognise(path: Path, usages: Mapping[str, Usage], problem: str | None) -> tuple[str, PDEBenchFile]:
    """The problem of a run that a file belongs to, and what the file holds.

    A file belongs to a problem if it has the layout, the attributes and the boundary (assumed where it does not
    say) of the problem's equation; of several such problems, to the one with the file's parameters.

    Raises:
        DataError: the file belongs to none of them; says why.
        ConfigurationError: there is no problem of this name, or the file may belong to several.
    """
    if problem is not None and problem not in usages:
        raise ConfigurationError(
            f"the run has no problem {problem!r}",
            where="--problem",
            fix=f"choose one of {', '.join(usages)}",
        )
    fitting: dict[str, PDEBenchFile] = {}
    refused: dict[str, DataError] = {}
    for name in usages if problem is None else [problem]:
        shape = usages[name].shape
        try:
            fitting[name] = inspect(path, problem=shape.equation, boundary=shape.boundary)
        except DataError as error:
            refused[name] = error
    if not fitting:
        if len({str(error) for error in refused.values()}) == 1:
            raise next(iter(refused.values()))
        reasons = "; ".join(f"{name}: {_reason(error, path)}" for name, error in refused.items())
        raise DataError(
            f"belongs to no problem of the run ({reasons})",
            where=str(path),
            fix="give a file of one of the run's problems; --problem NAME shows what is wrong with it",
        )
    equal = [name for name, file in fitting.items() if _same(file.parameters, usages[name].parameters)]
    candidates = equal or list(fitting)
    if len(candidates) > 1:
        raise ConfigurationError(
            f"{path} may belong to {' or '.join(candidates)}",
            where="--problem",
            fix="say which, with --problem NAME",
        )
    return candidates[0], fitting[candidates[0]]


def find_strides(described: PDEBenchFile, *, grid: tuple[int, ...], time_step: float | None) -> Strides:
    """Strides from a file's grid and frames to a model's.

    time_step: None for a map.

    Raises:
        DataError: the model's grid or time step is not among the file's.
    """
    space = described.grid[0] // grid[0]
    if space < 1 or tuple(space * points for points in grid) != described.grid:
        raise DataError(
            f"has {_points(described.grid)} grid points, and the model's grid of {_points(grid)} is not among them",
            where=str(described.path),
            fix=f"give a file whose resolution is a multiple of {_points(grid)}",
        )
    if time_step is None:
        return Strides(space, 1)
    interval = float(described.times[1] - described.times[0])
    stride = round(time_step / interval)
    if stride < 1 or abs(stride * interval - time_step) > 1e-4 * time_step:
        raise DataError(
            f"has frames every {interval:g}, and the model's step of {time_step:g} is no multiple of that",
            where=str(described.path),
            fix="give a file whose frame interval divides the model's time step",
        )
    if described.frames <= stride:
        raise DataError(
            f"has {described.frames} frames, too few for one step of {stride} frames",
            where=str(described.path),
        )
    return Strides(space, stride)


def _reason(error: DataError, path: Path) -> str:
    """What is wrong, without the file's name and what to do about it."""
    return str(error).partition("\n")[0].removeprefix(str(path)).lstrip(":, ")


def _strides_for(described: PDEBenchFile, usage: Usage) -> Strides:
    if min(described.parameters.values()) <= 0:
        raise DataError(
            f"has {described.parameters}, and the models are conditioned on the logarithms",
            where=str(described.path),
            fix="give a file with positive parameters",
        )
    step = None if usage.problem.is_map else usage.time_step
    return find_strides(described, grid=usage.grid, time_step=step)


def _read(
    described: PDEBenchFile,
    *,
    rows: int,
    variables: Variables,
    space_stride: int,
    time_stride: int,
    most_frames: int,
) -> Dataset:
    """The first rows of a file as a dataset, cut to the length of the models' trajectories: the residual models know no more leads."""
    is_map = described.problem.is_map
    read = read_trajectories(
        described.path,
        np.arange(min(rows, described.rows)),
        problem=described.problem.name,
        variables=variables,
        space_stride=space_stride,
        time_stride=time_stride,
        frames=None if is_map else min((described.frames - 1) // time_stride + 1, most_frames),
        boundary=described.boundary,
    )
    return Dataset(
        problem=described.problem,
        fields=read.fields,
        names=read.names,
        known=read.known,
        times=read.times,
        coordinates=read.coordinates,
        parameters=read.parameters,
        boundary=read.boundary,
        splits={SPLIT: np.arange(len(read.fields))},
        rows=read.rows,
        title=f"{described.path.name} ({described.problem.name})",
        version=described.data_version,
    )


def _warn(described: PDEBenchFile, usage: Usage) -> None:
    """Say what makes a file another problem than the one that the models were trained on."""
    if not _same(described.parameters, usage.parameters):
        log.warning(
            "%s has %s, the model was trained on %s: this measures extrapolation",
            described.path, described.parameters, usage.parameters,
        )  # fmt: skip
    lasts, trained_for = described.times[-1] - described.times[0], usage.time_step * (usage.frames - 1)
    if not usage.problem.is_map and lasts < 0.999 * trained_for:
        log.warning(
            "%s lasts %g, the trajectories of the training %g: only so much of a forecast is scored",
            described.path, lasts, trained_for,
        )  # fmt: skip
    if not usage.problem.is_map and lasts > 1.001 * trained_for:
        log.warning(
            "%s goes on to t = %g; its first %d frames are scored, as many as the models were trained on",
            described.path, described.times[-1], usage.frames,
        )  # fmt: skip
    first, trained_first = described.coordinates[0][0], usage.coordinates[0][0]
    if usage.shape.boundary != "periodic" and not math.isclose(first, trained_first, rel_tol=1e-3):
        log.warning(
            "%s has its first point at %.6g, the data of the training at %.6g: the model expects the walls that "
            "much elsewhere",
            described.path, first, trained_first,
        )  # fmt: skip


def _same(parameters: Mapping[str, float], others: Mapping[str, float]) -> bool:
    return parameters.keys() == others.keys() and all(
        math.isclose(value, others[name], rel_tol=1e-6) for name, value in parameters.items()
    )


def _points(grid: tuple[int, ...]) -> str:
    return " x ".join(map(str, grid))


if __name__ == "__main__":
    sys.exit(tool_main("ups.tools.score_file", answer))
