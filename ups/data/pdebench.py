"""PDEBench's one-dimensional trajectory files: layout, checks, reader and writer.

Layout (HDF5, contiguous, not compressed), with axis names fixed by the format and never inferred:

    tensor         [sample, time, x]   float32
    x-coordinate   [x]                 float32   cell centres (i + 1/2)/N of the unit interval
    t-coordinate   [time + 1]          float32   0, dt, 2 dt, ...: ONE MORE stamp than there are frames
    attribute Nu (Burgers) or beta (advection)

Other datasets and attributes are ignored: the official Burgers files hold some that nobody documents.

Two versions of the data exist under the same names. Until 2023 the flux of Burgers' equation lacked its factor
1/2 and x ran over (-1, 1): in the unit domain those files have viscosity nu/(4 pi), today's have nu/pi,
and advection ran at twice its speed. They solve another equation, so they are refused; x[0] < 0 gives them
away.

Source: the official files and PDEBench's documentation (Takamoto et al. 2022; https://doi.org/10.18419/darus-2986).
"""

import contextlib
import math
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from ups.errors import DataError, StorageError

Problem = Literal["burgers1d", "advection1d"]

DATA_VERSION = "2023-10"
"""The version of PDEBench's data that is read and written: unit domain, flux u^2/2, viscosity nu/pi."""

FIELDS = "tensor"
SPACE = "x-coordinate"
TIME = "t-coordinate"

# The problem's parameter: our name, and the attribute that holds it.
_PARAMETER: dict[Problem, tuple[str, str]] = {"burgers1d": ("nu", "Nu"), "advection1d": ("beta", "beta")}

# Rows are read in pieces of about this many bytes: a whole split may not fit into memory twice.
_READ_BYTES = 64 * 1024 * 1024

# Coordinates are float32 sums of steps; a hundredth of a step is far above their rounding and far below
# any other convention (cell edges differ from centres by half a step).
_COORDINATE_TOLERANCE = 0.01


@dataclass(frozen=True, eq=False)
class PDEBenchFile:
    """What a file holds, after its layout was checked; no trajectory was read."""

    path: Path
    problem: Problem
    rows: int
    frames: int
    resolution: int
    times: NDArray[np.float64]
    """[frames], without the surplus stamp."""
    coordinates: NDArray[np.float64]
    """[x], cell centres."""
    parameters: dict[str, float]
    """{"nu": ...} or {"beta": ...}."""
    data_version: str


@dataclass(frozen=True, eq=False)
class Trajectories:
    """Some rows of a file, possibly strided in time and space."""

    fields: NDArray[np.float32]
    """[n, t, x]."""
    times: NDArray[np.float64]
    """[t]."""
    coordinates: NDArray[np.float64]
    """[x]; after striding the first is still 1/(2 N) of the *stored* grid."""
    rows: NDArray[np.int64]
    """[n], row numbers in the file, in the order of `fields`."""
    parameters: dict[str, float]


def inspect(
    path: str | os.PathLike[str],
    *,
    problem: Problem = "burgers1d",
    parameters: Mapping[str, float] | None = None,
) -> PDEBenchFile:
    """Check the layout of a file and describe it, reading nothing but coordinates and attributes.

    `parameters` supplies the equation's parameter ({"nu": 0.01}) for a file without the attribute; where the
    file has one, the two must agree. The file's name is never consulted.

    Raises:
        DataError: the file is absent, is no HDF5 file, is truncated, belongs to the old data version, or
            departs from the layout; names the file, the dataset and what to do.
    """
    with _open(Path(path)) as file:
        return _describe(file, Path(path), problem, parameters)


def read_trajectories(
    path: str | os.PathLike[str],
    rows: NDArray[np.integer] | Sequence[int],
    *,
    space_stride: int = 1,
    time_stride: int = 1,
    frames: int | None = None,
    problem: Problem = "burgers1d",
    parameters: Mapping[str, float] | None = None,
) -> Trajectories:
    """Read some rows, plainly strided as PDEBench does it: every k-th point, no averaging.

    Args:
        path: the file.
        rows: row numbers [n], in any order. Only these are read, in ascending order, neighbours at once;
            the result is in the order asked for.
        space_stride: keeps points 0, k, 2k, ...; must divide the resolution.
        time_stride: keeps frames 0, k, 2k, ...; must divide the number of frames less one, so that the last
            frame is kept, unless `frames` says where to stop.
        frames: number of frames to return, counted after striding; None for all.
        problem: names the layout.
        parameters: as for `inspect`.

    Raises:
        DataError: as `inspect`; or rows, strides or frames that the file cannot serve; or a value that is not
            finite, with its row and frame.
        StorageError: the operating system failed to read.
    """
    path = Path(path)
    with _open(path) as file:
        description = _describe(file, path, problem, parameters)
        wanted = _checked_rows(rows, description)
        kept_frames = _kept_frames(description, time_stride, frames)
        if space_stride < 1 or description.resolution % space_stride:
            raise DataError(
                f"space stride {space_stride} does not divide the {description.resolution} points",
                where=_where(path, FIELDS),
                fix="use a divisor of the resolution",
            )
        fields = _read_rows(_fields(file, path), path, wanted, kept_frames, space_stride)
    return Trajectories(
        fields=fields,
        times=description.times[kept_frames],
        coordinates=description.coordinates[::space_stride],
        rows=wanted,
        parameters=description.parameters,
    )


def write_trajectories(
    path: str | os.PathLike[str],
    fields: NDArray[np.floating],
    times: NDArray[np.floating],
    coordinates: NDArray[np.floating],
    *,
    parameters: Mapping[str, float],
    problem: Problem = "burgers1d",
    attributes: Mapping[str, str | int | float] | None = None,
) -> None:
    """Write fields [n, t, x] as a PDEBench file, whole or not at all; see `TrajectoryWriter`."""
    with TrajectoryWriter(
        path,
        rows=len(fields),
        times=times,
        coordinates=coordinates,
        parameters=parameters,
        problem=problem,
        attributes=attributes,
    ) as writer:
        writer.append(fields)


class TrajectoryWriter:
    """Writes a PDEBench file block by block, so that a generator need not hold all rows.

        with TrajectoryWriter(path, rows=10_000, times=times, coordinates=x, parameters={"nu": 0.01}) as writer:
            for block in blocks:
                writer.append(block)

    The bytes go to a temporary sibling, which is synced and renamed when the block ends: `path` never names a
    half-written file. On an exception the sibling is removed; a killed process leaves one named
    `.<name>.*.partial`, which may be deleted. Equal arguments give equal bytes.

    Args:
        path: the file to make; replaced if it exists. Its directory must exist.
        rows: how many rows will be appended in all, at least 1.
        times: [t] time of each frame, at least 2 and equally spaced. PDEBench's surplus stamp is added here.
        coordinates: [x] cell centres of the unit interval.
        parameters: {"nu": ...} for Burgers, {"beta": ...} for advection.
        problem: names the layout.
        attributes: provenance to keep with the data (seed, generator, ...).

    Raises:
        DataError: arguments that the layout cannot hold, a value that is not finite, or another number of rows
            than announced.
        StorageError: the operating system failed to write.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        rows: int,
        times: NDArray[np.floating],
        coordinates: NDArray[np.floating],
        parameters: Mapping[str, float],
        problem: Problem = "burgers1d",
        attributes: Mapping[str, str | int | float] | None = None,
    ) -> None:
        self.path = Path(path)
        self.rows = rows
        self.written = 0
        name, attribute = _parameter_names(problem)
        if set(parameters) != {name}:
            raise DataError(
                f"{problem} has the parameter {name}, got {', '.join(sorted(parameters)) or 'none'}",
                where=str(self.path),
                fix=f'pass parameters={{"{name}": value}}',
            )
        if rows < 1:
            raise DataError(f"cannot hold {rows} rows", where=str(self.path), fix="write at least one row")
        self._attributes = dict(attributes or {})
        if attribute in self._attributes:
            raise DataError(
                f"attribute {attribute} is the equation's parameter",
                where=str(self.path),
                fix="give it as parameters, once",
            )
        self._attributes[attribute] = _checked_parameter(parameters[name], name, self.path)
        self._times = np.asarray(times, dtype=np.float64)
        self._coordinates = np.asarray(coordinates, dtype=np.float64)
        _check_times(self._times, self.path)
        _check_coordinates(self._coordinates, self.path)
        self._file: h5py.File | None = None
        self._fields: h5py.Dataset | None = None
        self._temporary: Path | None = None

    def __enter__(self) -> Self:
        frames, points = len(self._times), len(self._coordinates)
        surplus = self._times[-1] + (self._times[-1] - self._times[0]) / (frames - 1)
        self._temporary = self.path.with_name(f".{self.path.name}.{secrets.token_hex(8)}.partial")
        try:
            with _as_storage_error(self.path):
                self._file = h5py.File(self._temporary, "x")
                self._fields = self._file.create_dataset(FIELDS, (self.rows, frames, points), dtype="<f4")
                self._file.create_dataset(SPACE, data=self._coordinates.astype("<f4"))
                self._file.create_dataset(TIME, data=np.append(self._times, surplus).astype("<f4"))
                for name, value in self._attributes.items():
                    self._file.attrs[name] = value
        except BaseException:
            self._discard()
            raise
        return self

    def append(self, fields: NDArray[np.floating]) -> None:
        """Write the next rows, [n, t, x]; rounded to float32."""
        if self._fields is None:
            raise ValueError("append() is for the inside of a `with TrajectoryWriter(...)` block")
        expected = (len(self._times), len(self._coordinates))
        if fields.ndim != 3 or fields.shape[1:] != expected:
            raise DataError(
                f"fields have shape {fields.shape}, the file [n, {expected[0]}, {expected[1]}]",
                where=_where(self.path, FIELDS),
                fix="give [n, t, x] with one entry per time and per coordinate",
            )
        if self.written + len(fields) > self.rows:
            raise DataError(
                f"{self.written + len(fields)} rows were given, {self.rows} announced",
                where=_where(self.path, FIELDS),
                fix="announce as many rows as are appended",
            )
        with np.errstate(over="ignore"):  # what overflows float32 is reported next, as not finite
            rounded = np.asarray(fields, dtype="<f4")
        _check_finite(rounded, np.arange(self.written, self.written + len(rounded)), self.path)
        with _as_storage_error(self.path):
            self._fields[self.written : self.written + len(rounded)] = rounded
        self.written += len(rounded)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._publish()
        finally:
            self._discard()

    def _publish(self) -> None:
        if self.written != self.rows:
            raise DataError(
                f"{self.written} rows were given, {self.rows} announced",
                where=_where(self.path, FIELDS),
                fix="announce as many rows as are appended",
            )
        assert self._file is not None
        assert self._temporary is not None
        with _as_storage_error(self.path):
            self._file.close()
            _sync(self._temporary)
            self._temporary.replace(self.path)
            _sync(self.path.parent)

    def _discard(self) -> None:
        if self._file is not None:
            # After a failed write closing fails too; the error that matters is already on its way.
            with contextlib.suppress(OSError, RuntimeError):
                self._file.close()
            self._file = self._fields = None
        if self._temporary is not None:
            self._temporary.unlink(missing_ok=True)
            self._temporary = None


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _where(path: Path, dataset: str) -> str:
    return f"{path}, dataset {dataset}"


@contextlib.contextmanager
def _as_storage_error(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"reading or writing failed: {error}",
            where=str(path),
            fix="check the disk, then repeat the command",
        ) from error


@contextlib.contextmanager
def _open(path: Path) -> Iterator[h5py.File]:
    if not path.is_file():
        raise DataError("there is no such file", where=str(path), fix="check the path, or download the file")
    try:
        file = h5py.File(path, "r")
    except PermissionError as error:
        raise DataError("may not be read", where=str(path), fix="check the file's permissions") from error
    except OSError as error:
        # HDF5 compares the length of the file with the one in its header, so truncation ends here.
        raise DataError(
            f"is not a complete HDF5 file ({error})",
            where=str(path),
            fix="download it again and compare its MD5 with the published one",
        ) from error
    with file:
        yield file


def _describe(
    file: h5py.File, path: Path, problem: Problem, parameters: Mapping[str, float] | None
) -> PDEBenchFile:
    fields = _fields(file, path)
    if fields.dtype.kind != "f" or fields.dtype.itemsize != 4:
        raise DataError(
            f"values are {fields.dtype}, the layout has float32",
            where=_where(path, FIELDS),
            fix="convert the file, or check that it is a PDEBench file",
        )
    rows, frames, resolution = fields.shape
    if 0 in fields.shape:
        raise DataError(
            f"is empty: {fields.shape}", where=_where(path, FIELDS), fix="download the file again"
        )
    if fields.chunks is None and fields.id.get_storage_size() == 0:
        # HDF5 reserves the space of a dataset at the first write and reads zeros until then.
        raise DataError(
            "was announced but never written", where=_where(path, FIELDS), fix="make the file again"
        )

    coordinates = _vector(file, path, SPACE)
    if coordinates[0] < 0:
        raise DataError(
            f"starts at {coordinates[0]:g}: this is the data version from before October 2023, whose "
            "flux was twice as large (in the unit domain: viscosity nu/(4 pi) instead of nu/pi, advection at "
            "twice its speed); results on it cannot be compared with those on the present one",
            where=_where(path, SPACE),
            fix="download the present version; PDEBench's README still lists old ids, its csv the present ones",
        )
    if len(coordinates) != resolution:
        raise DataError(
            f"has {len(coordinates)} entries for {resolution} points of {FIELDS}",
            where=_where(path, SPACE),
            fix="download the file again",
        )
    _check_coordinates(coordinates, path)

    times = _vector(file, path, TIME)
    if len(times) not in {frames, frames + 1}:
        raise DataError(
            f"has {len(times)} stamps for {frames} frames of {FIELDS}; the layout has {frames + 1}",
            where=_where(path, TIME),
            fix="download the file again",
        )
    times = times[:frames]
    _check_times(times, path)

    for array in (times, coordinates):
        array.flags.writeable = False
    return PDEBenchFile(
        path=path,
        problem=problem,
        rows=rows,
        frames=frames,
        resolution=resolution,
        times=times,
        coordinates=coordinates,
        parameters=_parameters(file, path, problem, parameters),
        data_version=DATA_VERSION,
    )


def _fields(file: h5py.File, path: Path) -> h5py.Dataset:
    return _dataset(file, path, FIELDS, rank=3, axes="[sample, time, x]")


def _dataset(file: h5py.File, path: Path, name: str, *, rank: int, axes: str) -> h5py.Dataset:
    dataset = file.get(name)
    if not isinstance(dataset, h5py.Dataset):
        present = ", ".join(str(key) for key in file if isinstance(file.get(key), h5py.Dataset)) or "none"
        raise DataError(
            f"has no dataset {name}; there are: {present}",
            where=str(path),
            fix="check that the file belongs to the problem",
        )
    if dataset.ndim != rank:
        raise DataError(
            f"has shape {dataset.shape}, the layout has {axes}",
            where=_where(path, name),
            fix="check that the file belongs to the problem",
        )
    return dataset


def _vector(file: h5py.File, path: Path, name: str) -> NDArray[np.float64]:
    dataset = _dataset(file, path, name, rank=1, axes="one axis")
    if dataset.dtype.kind != "f" or len(dataset) == 0:
        raise DataError(
            f"holds {len(dataset)} values of {dataset.dtype}, the layout has float32",
            where=_where(path, name),
            fix="download the file again",
        )
    with _as_storage_error(path):
        return dataset[:].astype(np.float64)


def _parameters(
    file: h5py.File, path: Path, problem: Problem, given: Mapping[str, float] | None
) -> dict[str, float]:
    name, attribute = _parameter_names(problem)
    if given is not None and set(given) != {name}:
        raise DataError(
            f"{problem} has the parameter {name}, got {', '.join(sorted(given)) or 'none'}",
            where=str(path),
            fix=f'pass parameters={{"{name}": value}}',
        )
    if attribute not in file.attrs:
        if given is None:
            raise DataError(
                f"has no attribute {attribute}",
                where=str(path),
                fix=f'pass parameters={{"{name}": value}}; the file\'s name is not trusted',
            )
        return {name: _checked_parameter(given[name], name, path)}
    stored = _checked_parameter(file.attrs[attribute], attribute, path)
    if given is not None and not math.isclose(given[name], stored, rel_tol=1e-6):
        raise DataError(
            f"attribute {attribute} is {stored:g}, but {given[name]:g} was expected",
            where=str(path),
            fix="correct the expected value, or use the file that has it",
        )
    return {name: stored}


def _parameter_names(problem: Problem) -> tuple[str, str]:
    """Our name of the problem's parameter, and the attribute that holds it."""
    if problem not in _PARAMETER:
        raise ValueError(f"problem must be one of {', '.join(_PARAMETER)}, got {problem!r}")
    return _PARAMETER[problem]


def _checked_parameter(value: object, name: str, path: Path) -> float:
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "fiu" or not np.isfinite(array).all() or array.item() < 0:
        raise DataError(
            f"{name} is {value!r}, not one finite number from 0 upwards",
            where=str(path),
            fix="correct the value",
        )
    return float(array.item())


def _check_coordinates(coordinates: NDArray[np.float64], path: Path) -> None:
    if coordinates.ndim != 1 or len(coordinates) == 0:
        raise DataError(f"has shape {coordinates.shape}, not [x]", where=_where(path, SPACE))
    width = 1.0 / len(coordinates)
    expected = (np.arange(len(coordinates)) + 0.5) * width
    _check_spacing(coordinates, expected, width, path, SPACE, "cell centres (i + 1/2)/N of the unit interval")


def _check_times(times: NDArray[np.float64], path: Path) -> None:
    if times.ndim != 1 or len(times) < 2:
        raise DataError(
            f"has shape {times.shape}, not [t] with two frames or more",
            where=_where(path, TIME),
            fix="a trajectory needs a frame to start from and one to predict",
        )
    interval = (times[-1] - times[0]) / (len(times) - 1)
    if not interval > 0:
        raise DataError("does not increase", where=_where(path, TIME), fix="download the file again")
    expected = times[0] + interval * np.arange(len(times))
    _check_spacing(times, expected, interval, path, TIME, "equally spaced")


def _check_spacing(
    values: NDArray[np.floating],
    expected: NDArray[np.floating],
    step: float,
    path: Path,
    dataset: str,
    description: str,
) -> None:
    wrong = ~(np.abs(values - expected) <= _COORDINATE_TOLERANCE * step)  # also catches NaN
    if wrong.any():
        first = int(np.argmax(wrong))
        raise DataError(
            f"is not {description}: entry {first} is {values[first]:.9g}, expected {expected[first]:.9g}",
            where=_where(path, dataset),
            fix="check that the file is complete and has PDEBench's grid",
        )


def _checked_rows(rows: NDArray[np.integer] | Sequence[int], description: PDEBenchFile) -> NDArray[np.int64]:
    wanted = np.asarray(rows)
    if wanted.ndim != 1 or (wanted.size and not np.issubdtype(wanted.dtype, np.integer)):
        raise ValueError(f"rows must be integers [n], got {wanted.dtype} {wanted.shape}")
    outside = wanted[(wanted < 0) | (wanted >= description.rows)]
    if outside.size:
        raise DataError(
            f"row {outside[0]} was asked for ({outside.size} such rows), the file has rows 0 to {description.rows - 1}",
            where=_where(description.path, FIELDS),
            fix="ask for fewer rows, or use the whole file",
        )
    return wanted.astype(np.int64)


def _kept_frames(description: PDEBenchFile, time_stride: int, frames: int | None) -> slice:
    where = _where(description.path, FIELDS)
    last = description.frames - 1
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


def _read_rows(
    dataset: h5py.Dataset, path: Path, wanted: NDArray[np.int64], kept_frames: slice, space_stride: int
) -> NDArray[np.float32]:
    """Rows `wanted` as [n, t, x]. Strides are taken in memory: HDF5 walks a strided selection point by point."""
    ascending, position = np.unique(wanted, return_inverse=True)
    frames = len(range(*kept_frames.indices(dataset.shape[1])))
    fields = np.empty((len(ascending), frames, dataset.shape[2] // space_stride), dtype=np.float32)
    piece = max(1, _READ_BYTES // (4 * kept_frames.stop * dataset.shape[2]))
    for start, stop in _runs(ascending, piece):
        first = int(ascending[start])
        with _as_storage_error(path):
            values = dataset[first : first + stop - start, : kept_frames.stop]
        _check_finite(values, ascending[start:stop], path)
        fields[start:stop] = values[:, :: kept_frames.step, ::space_stride]
    in_order = np.array_equal(position, np.arange(len(wanted)))
    return fields if in_order else fields[position]


def _runs(ascending: NDArray[np.int64], longest: int) -> Iterator[tuple[int, int]]:
    """Index ranges of `ascending` that hold consecutive numbers, none longer than `longest`."""
    start = 0
    for index in range(1, len(ascending) + 1):
        ends = index == len(ascending) or ascending[index] != ascending[index - 1] + 1
        if ends or index - start == longest:
            yield start, index
            start = index


def _check_finite(fields: NDArray[np.float32], rows: NDArray[np.int64], path: Path) -> None:
    broken = np.argwhere(~np.isfinite(fields).all(axis=2))
    if len(broken):
        row, frame = broken[0]
        raise DataError(
            f"row {rows[row]} holds a value that is not finite at frame {frame} ({len(broken)} such frames)",
            where=_where(path, FIELDS),
            fix="leave the row out, or download the file again",
        )
