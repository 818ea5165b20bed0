"""Forecast from the first frames of a file in PDEBench's layout, with a finished run or an exported surrogate.

No stage of the chain: it seals nothing. `python -m ups.tools.forecast_file --work DIR` reads DIR/request.json
{"source", "file", "out", "rows", "problem", "model", "members", "steps", "seed", "device", "threads"} and ends with
DIR/outcome.json, whose summary says what was written.
"""

import json
import os
import secrets
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr
from numpy.typing import NDArray

import ups
from ups.artifacts.files import storage_error, sync_tree
from ups.data.pdebench import inspect, read_trajectories
from ups.data.pdebench_writer import write_trajectories
from ups.errors import ConfigurationError
from ups.evaluation.predictor import Prediction
from ups.evaluation.usage import Usage
from ups.problems import Boundary
from ups.tools.score_file import find_strides
from ups.tools.tool_main import tool_main


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Forecast and write; returns what."""
    torch.set_num_threads(request["threads"])
    predictor = ups.load(request["source"], device=request["device"])
    usage = predictor.usage(request["problem"])
    path, out = Path(request["file"]), Path(request["out"])
    found = inspect(path, problem=usage.problem.name)
    stride = find_strides(found, grid=usage.grid, time_step=None).space
    read = read_trajectories(
        path,
        np.arange(min(request["rows"], found.rows)),
        problem=usage.problem.name,
        variables=usage.shape.variables,
        space_stride=stride,
        frames=None if usage.problem.is_map else 1,
    )
    if out.suffix != ".zarr" and usage.shape.variables != "primitive":
        raise ConfigurationError(
            f"PDEBench's layout holds primitive variables, and the surrogate forecasts {usage.shape.variables} ones",
            where=str(out),
            fix="write a .zarr",
        )
    first = read.fields[:, 0]
    prediction = predictor.forecast(
        {field.name: first[..., usage.fields.index(field)] for field in usage.given},
        parameters=read.parameters,
        model=request["model"],
        members=request["members"],
        keep_members=False,
        steps=None if usage.problem.is_map else request["steps"],
        problem=request["problem"],
        seed=request["seed"],
    )
    if out.suffix == ".zarr":
        _write_zarr(out, usage, first, prediction)
    else:
        _write_pdebench(out, usage, first, prediction, read.parameters, read.boundary)
    return {"rows": len(first), "steps": len(prediction.times), "provenance": prediction.provenance}


def _with_first(
    usage: Usage, first: NDArray[np.float32], values: dict[str, Any]
) -> dict[str, NDArray[np.float32]]:
    """Frames behind the given one, [n, 1 + t, *grid]; of a map what is forecast, [n, *grid]."""
    if usage.problem.is_map:
        return values
    given = {field.name: first[:, None, ..., channel] for channel, field in enumerate(usage.fields)}
    return {name: np.concatenate([given[name], part], axis=1) for name, part in values.items()}


def _write_pdebench(
    out: Path,
    usage: Usage,
    first: NDArray[np.float32],
    prediction: Prediction,
    parameters: dict[str, float],
    boundary: Boundary,
) -> None:
    """The mean, as trajectories that begin with the given frame."""
    frames = _with_first(usage, first, prediction.mean)
    fields = np.stack(
        [
            first[..., channel][:, None]
            if field.given
            else frames[field.name].reshape(len(first), -1, *usage.grid)
            for channel, field in enumerate(usage.fields)
        ],
        axis=-1,
    )
    write_trajectories(
        out,
        fields,
        None if usage.problem.is_map else np.append(0.0, prediction.times),
        [np.asarray(axis) for axis in usage.coordinates],
        problem=usage.problem.name,
        parameters=parameters,
        boundary=boundary,
        attributes={"forecast": json.dumps(prediction.provenance, sort_keys=True)},
    )


def _write_zarr(out: Path, usage: Usage, first: NDArray[np.float32], prediction: Prediction) -> None:
    """Mean and spread, with names that `xarray.open_zarr` knows; whole or not at all."""
    temporary = out.with_name(f".{out.name}.{os.getpid()}-{secrets.token_hex(4)}")
    time = () if usage.problem.is_map else ("time",)
    dims = ("sample", *time, *usage.problem.axes)
    arrays: dict[str, tuple[tuple[str, ...], NDArray[Any]]] = {
        name: (dims, values) for name, values in _with_first(usage, first, prediction.mean).items()
    }
    if prediction.spread is not None:
        still = np.zeros_like(first)
        spreads = _with_first(usage, still, prediction.spread)
        arrays |= {f"{name}_spread": (dims, values) for name, values in spreads.items()}
    for axis, points in prediction.coordinates.items():
        arrays[axis] = ((axis,), points)
    if time:
        arrays["time"] = (time, np.append(0.0, prediction.times))
    try:
        group = zarr.create_group(temporary, attributes={"forecast": prediction.provenance})
        for name, (names, values) in arrays.items():
            unit: dict[str, Any] = (
                {"units": prediction.units[name.removesuffix("_spread")]} if names == dims else {}
            )
            group.create_array(
                name, data=np.ascontiguousarray(values), dimension_names=names, attributes=unit
            )
        sync_tree(temporary)
        temporary.rename(out)
    except OSError as error:
        raise storage_error(error, out) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(tool_main("ups.tools.forecast_file", answer))
