"""PDEBench's files: what one holds, and some of its rows.

The layout of every problem is declared in `ups.problems`; the axes of an array are fixed by it and never
inferred. Values are float32, coordinates are the centres of equal cells. Two facts hold for all:
- the time coordinate has ONE MORE stamp than there are frames (it may be absent);
- a map (2D Darcy) has no time. It is returned as two frames, 0 with only the given fields known and 1 with all
  of them, so that whoever predicts the next frame from the present one predicts the map.
Other datasets and attributes are ignored: the official Burgers files hold some that nobody documents. Files of
our own (`ups.data.pdebench_writer`) also name their problem and boundary, and may say which rows of another
file they hold.

Two versions of the data exist under the same names. Until 2023 the flux of Burgers' equation lacked its factor
1/2 and x ran over (-1, 1): in the unit domain those files have viscosity nu/(4 pi), today's have nu/pi, and
advection ran at twice its speed. They solve another equation, so they are refused; x[0] < 0 gives them away.

Source: the official files and PDEBench's documentation (Takamoto et al. 2022; https://doi.org/10.18419/darus-2986).
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ups.data.hdf5 import CheckedArray, CheckedFile, open_checked
from ups.data.layout import (
    BOUNDARY_ATTRIBUTE,
    PROBLEM_ATTRIBUTE,
    axes_text,
    boundary_of,
    check_coordinates,
    check_original_rows,
    check_times,
    parameters_of,
    place,
    problem_named,
)
from ups.data.pdebench_rows import read_rows
from ups.errors import DataError
from ups.problems import PROBLEMS, Boundary, Parameter, Problem, ProblemName, StoredArray, Variables
from ups.problems.problem import ORIGINAL_ROWS

DATA_VERSION = "2023-10"
"""The version of PDEBench's data that is read and written: unit domain, flux u^2/2, viscosity nu/pi."""


@dataclass(frozen=True, eq=False)
class PDEBenchFile:
    """What a file holds, after its layout was checked; no trajectory was read."""

    path: Path
    problem: Problem
    rows: int
    frames: int
    """2 for a map, see the module."""
    grid: tuple[int, ...]
    """Points per space axis."""
    times: NDArray[np.float64]
    """[frames], without the surplus stamp; 0 and 1 for a map."""
    coordinates: tuple[NDArray[np.float64], ...]
    """Cell centres [points], one array per space axis."""
    parameters: dict[str, float]
    """By our names, e.g. {"nu": ...}."""
    boundary: Boundary
    data_version: str
    original_rows: NDArray[np.int64] | None = None
    """[rows] numbers of these rows in the file they were cut from, where the file says."""


@dataclass(frozen=True, eq=False)
class Trajectories:
    """Some rows of a file, possibly strided in time and space."""

    fields: NDArray[np.float32]
    """[n, t, *grid, C]."""
    names: tuple[str, ...]
    """Of the C fields."""
    known: NDArray[np.bool_]
    """[t, C]; False where the value is not known in that frame and stored as 0 (a map's first frame)."""
    times: NDArray[np.float64]
    """[t]."""
    coordinates: tuple[NDArray[np.float64], ...]
    """One [points] per space axis; after striding the first is still the first of the *stored* grid."""
    rows: NDArray[np.int64]
    """[n], row numbers in the file, in the order of `fields`."""
    parameters: dict[str, float]
    boundary: Boundary


def inspect(
    path: str | os.PathLike[str],
    *,
    problem: ProblemName,
    parameters: Mapping[str, float] | None = None,
    boundary: Boundary | None = None,
) -> PDEBenchFile:
    """Check the layout of a file and describe it, reading nothing but coordinates and attributes.

    `parameters` supplies the equation's numbers ({"nu": 0.01}) that the file has no attribute for, `boundary`
    the boundary of a file that does not name it; where the file says, the two must agree. The file's name is
    never consulted.

    Raises:
        DataError: the file is absent, is no HDF5 file, is truncated, belongs to the old data version, or
            departs from the layout; names the file, the dataset and what to do.
        StorageError: the operating system failed to read.
    """
    declared = problem_named(problem)
    with open_checked(Path(path)) as file:
        return _describe(file, declared, parameters, boundary)


def fitting_problems(path: str | os.PathLike[str]) -> tuple[ProblemName, ...]:
    """The problems whose arrays and whose equation's numbers a file has, whatever it is called.

    Burgers and advection have the same arrays: a number, `Nu` (or `nu`) or `beta`, tells them apart.

    Raises:
        DataError, StorageError: as `inspect`, but that nothing is checked beyond that.
    """
    with open_checked(Path(path)) as file:
        return tuple(
            problem.name
            for problem in PROBLEMS.values()
            if all(
                file.has(array.key) and len(file.array(array.key).shape) == len(array.axes)
                for array in problem.arrays
            )
            and all(_number(file, parameter) is not None for parameter in problem.parameters)
        )


def read_trajectories(
    path: str | os.PathLike[str],
    rows: NDArray[np.integer] | Sequence[int],
    *,
    problem: ProblemName,
    variables: Variables = "primitive",
    space_stride: int = 1,
    time_stride: int = 1,
    frames: int | None = None,
    parameters: Mapping[str, float] | None = None,
    boundary: Boundary | None = None,
) -> Trajectories:
    """Read some rows, plainly strided as PDEBench does it: every k-th point, no averaging.

    Args:
        path: the file.
        rows: row numbers [n], in any order. Only these are read, in ascending order, neighbours at once;
            the result is in the order asked for.
        problem: names the layout.
        variables: "primitive" as stored, or "conserved" where the problem has such.
        space_stride: keeps points 0, k, 2k, ... of every space axis; must divide each number of points.
        time_stride: keeps frames 0, k, 2k, ...; must divide the number of frames less one, so that the last
            frame is kept, unless `frames` says where to stop. A map has no frames to stride over.
        frames: number of frames to return, counted after striding; None for all.
        parameters, boundary: as for `inspect`.

    Raises:
        DataError: as `inspect`; or rows, strides or frames that the file cannot serve; or a value that the
            field cannot have, with its row and frame.
        StorageError: the operating system failed to read.
        ValueError: the problem has no such variables, or `rows` are no row numbers.
    """
    declared = problem_named(problem)
    fields_asked = declared.fields_in(variables)
    with open_checked(Path(path)) as file:
        description = _describe(file, declared, parameters, boundary)
        wanted = _checked_rows(rows, description)
        kept_frames = _kept_frames(description, time_stride, frames)
        for axis, points in zip(declared.axes, description.grid, strict=True):
            if space_stride < 1 or points % space_stride:
                raise DataError(
                    f"space stride {space_stride} does not divide the {points} points along {axis}",
                    where=place(description.path, declared.arrays[0].key),
                    fix="use a divisor of the resolution",
                )
        arrays = [file.array(array.key) for array in declared.arrays]
        fields = read_rows(
            arrays,
            declared,
            wanted,
            grid=description.grid,
            frames=kept_frames,
            space_stride=space_stride,
            variables=variables,
        )
    known = np.ones((fields.shape[1], len(fields_asked)), dtype=bool)
    if declared.is_map:
        known[0] = [field.given for field in fields_asked]
        fields[:, 0, ..., ~known[0]] = 0.0
    return Trajectories(
        fields=fields,
        names=tuple(field.name for field in fields_asked),
        known=known,
        times=description.times[kept_frames],
        coordinates=tuple(axis[::space_stride] for axis in description.coordinates),
        rows=wanted,
        parameters=description.parameters,
        boundary=description.boundary,
    )


def _describe(
    file: CheckedFile, problem: Problem, parameters: Mapping[str, float] | None, boundary: Boundary | None
) -> PDEBenchFile:
    named = file.text(PROBLEM_ATTRIBUTE)
    if named is not None and named != problem.name:
        raise DataError(
            f"is a file of {named}, not of {problem.name}",
            where=str(file.path),
            fix=f"give a file of {problem.name}, or say that this one is of {named}: `equation` in the data of a "
            "configuration, --problem of `ups data check`",
        )
    lengths = _lengths(file, problem)
    coordinates = tuple(
        _coordinates(file, problem, index, lengths[axis]) for index, axis in enumerate(problem.axes)
    )
    times = _times(file, problem, lengths)
    stored = {parameter.attribute: _number(file, parameter) for parameter in problem.parameters}
    original_rows = _original_rows(file, lengths["sample"])
    for array in (times, *coordinates, *([] if original_rows is None else [original_rows])):
        array.flags.writeable = False
    return PDEBenchFile(
        path=file.path,
        problem=problem,
        rows=lengths["sample"],
        frames=len(times),
        grid=tuple(lengths[axis] for axis in problem.axes),
        times=times,
        coordinates=coordinates,
        parameters=parameters_of(problem, stored, parameters, file.path),
        boundary=boundary_of(problem, file.text(BOUNDARY_ATTRIBUTE), boundary, file.path),
        data_version=DATA_VERSION,
        original_rows=original_rows,
    )


def _number(file: CheckedFile, parameter: Parameter) -> float | None:
    """A number of the equation, by PDEBench's attribute or by its own name (`Nu` or `nu`)."""
    found = [
        value
        for attribute in dict.fromkeys((parameter.attribute, parameter.name))
        if (value := file.number(attribute)) is not None
    ]
    if len(set(found)) > 1:
        raise DataError(
            f"attributes {parameter.attribute} and {parameter.name} are {found[0]:g} and {found[1]:g}",
            where=str(file.path),
            fix="take the wrong one away",
        )
    return found[0] if found else None


def _lengths(file: CheckedFile, problem: Problem) -> dict[str, int]:
    """Length of every axis; all arrays have it so."""
    lengths: dict[str, int] = {"channel": 1}
    for declared in problem.arrays:
        array = file.array(declared.key)
        if len(array.shape) != len(declared.axes):
            raise _wrong_shape(array, declared)
        for axis, length in zip(declared.axes, array.shape, strict=True):
            if lengths.setdefault(axis, length) != length:
                raise _wrong_shape(array, declared, f" with {lengths[axis]} along {axis}")
    return lengths


def _wrong_shape(array: CheckedArray, declared: StoredArray, detail: str = "") -> DataError:
    return DataError(
        f"has shape {array.shape}, the layout has {axes_text(declared)}{detail}",
        where=array.where,
        fix="check that the file belongs to the problem",
    )


def _coordinates(file: CheckedFile, problem: Problem, index: int, points: int) -> NDArray[np.float64]:
    axis, domain = problem.axes[index], problem.domain[index]
    key = problem.coordinate_key(axis)
    values = _vector(file, key)
    if values[0] < 0 and domain == (0.0, 1.0) and not problem.is_map:
        raise DataError(
            f"starts at {values[0]:g}: this is the data version from before October 2023, whose "
            "flux was twice as large (in the unit domain: viscosity nu/(4 pi) instead of nu/pi, advection at "
            "twice its speed); results on it cannot be compared with those on the present one",
            where=place(file.path, key),
            fix="download the present version; PDEBench's README still lists old ids, its csv the present ones",
        )
    if len(values) != points:
        raise DataError(
            f"has {len(values)} entries for {points} points along {axis}",
            where=place(file.path, key),
            fix="download the file again",
        )
    check_coordinates(values, domain, file.path, key)
    return values


def _times(file: CheckedFile, problem: Problem, lengths: dict[str, int]) -> NDArray[np.float64]:
    if problem.time_key is None:
        return np.array([0.0, 1.0])
    frames = lengths["time"]
    stamps = _vector(file, problem.time_key)
    if len(stamps) not in {frames, frames + 1}:
        raise DataError(
            f"has {len(stamps)} stamps for {frames} frames; the layout has {frames + 1}",
            where=place(file.path, problem.time_key),
            fix="download the file again",
        )
    times = stamps[:frames]
    check_times(times, file.path, problem.time_key)
    return times


def _vector(file: CheckedFile, key: str) -> NDArray[np.float64]:
    """A coordinate. It is held against the grid value by value, so that float64 does no harm."""
    array = file.array(key, ("float32", "float64"))
    if len(array.shape) != 1:
        raise DataError(
            f"has shape {array.shape}, the layout has one axis",
            where=array.where,
            fix="check that the file belongs to the problem",
        )
    with np.errstate(invalid="ignore"):  # a NaN is found by the comparison with the grid
        return array.read().astype(np.float64)


def _original_rows(file: CheckedFile, rows: int) -> NDArray[np.int64] | None:
    if not file.has(ORIGINAL_ROWS):
        return None
    array = file.array(ORIGINAL_ROWS, ("int64",))
    numbers = array.read().astype(np.int64)
    check_original_rows(numbers, rows, file.path)
    return numbers


def _checked_rows(rows: NDArray[np.integer] | Sequence[int], description: PDEBenchFile) -> NDArray[np.int64]:
    wanted = np.asarray(rows)
    if wanted.ndim != 1 or (wanted.size and not np.issubdtype(wanted.dtype, np.integer)):
        raise ValueError(f"rows must be integers [n], got {wanted.dtype} {wanted.shape}")
    outside = wanted[(wanted < 0) | (wanted >= description.rows)]
    if outside.size:
        raise DataError(
            f"row {outside[0]} was asked for ({outside.size} such rows), the file has rows 0 to {description.rows - 1}",
            where=str(description.path),
            fix="ask for fewer rows, or use the whole file",
        )
    return wanted.astype(np.int64)


def _kept_frames(description: PDEBenchFile, time_stride: int, frames: int | None) -> slice:
    where = str(description.path)
    last = description.frames - 1
    if description.problem.is_map and (time_stride != 1 or frames not in {None, 2}):
        raise DataError(
            f"time stride {time_stride} and {frames or 'all'} frames were asked for, and "
            f"{description.problem.name} is a map: it has no time",
            where=where,
            fix="leave time stride and frames out",
        )
    if time_stride < 1 or (frames is None and last % time_stride):
        raise DataError(
            f"time stride {time_stride} does not divide the {last} intervals between {description.frames} frames",
            where=where,
            fix="use a divisor, or give the number of frames",
        )
    available = last // time_stride + 1
    if frames is not None and not 1 <= frames <= available:
        raise DataError(
            f"{frames} frames were asked for, stride {time_stride} leaves {available}",
            where=where,
            fix=f"ask for 1 to {available} frames",
        )
    kept = available if frames is None else frames
    return slice(0, (kept - 1) * time_stride + 1, time_stride)
