"""Writing files in PDEBench's layout, which `ups.data.pdebench` reads.

As in the genuine files: contiguous, not compressed, float32, one surplus time stamp, parameters as attributes. Our
own files also store the attributes `problem` and `boundary`, which genuine ones lack, whatever provenance is
given, and the row numbers in the file that the rows were cut from.
"""

import contextlib
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import h5py
import numpy as np
from numpy.typing import NDArray

from ups.artifacts.files import publish, storage_error
from ups.data.layout import (
    BOUNDARY_ATTRIBUTE,
    PROBLEM_ATTRIBUTE,
    boundary_of,
    check_coordinates,
    check_original_rows,
    check_parameter_names,
    check_times,
    check_values,
    parameters_of,
    place,
    problem_named,
)
from ups.errors import DataError
from ups.problems import Boundary, ProblemName
from ups.problems.problem import ORIGINAL_ROWS


def write_trajectories(
    path: str | os.PathLike[str],
    fields: NDArray[np.floating],
    times: NDArray[np.floating] | None,
    coordinates: Sequence[NDArray[np.floating]],
    *,
    problem: ProblemName,
    parameters: Mapping[str, float],
    boundary: Boundary,
    attributes: Mapping[str, str | int | float] | None = None,
    original_rows: NDArray[np.integer] | None = None,
) -> None:
    """Write fields [n, t, *grid, C] as a PDEBench file, whole or not at all; see `TrajectoryWriter`."""
    with TrajectoryWriter(
        path,
        problem=problem,
        rows=len(fields),
        times=times,
        coordinates=coordinates,
        parameters=parameters,
        boundary=boundary,
        attributes=attributes,
        original_rows=original_rows,
    ) as writer:
        writer.append(fields)


class TrajectoryWriter:
    """Writes a PDEBench file block by block, so that a generator need not hold all rows.

        with TrajectoryWriter(path, problem="burgers1d", rows=10_000, times=times, coordinates=[x],
                              parameters={"nu": 0.01}, boundary="periodic") as writer:
            for block in blocks:
                writer.append(block)

    The bytes go to a temporary sibling, which is synced and renamed when the block ends: `path` never names a
    half-written file. On an exception the sibling is removed; a killed process leaves one named
    `.<name>.*.partial`, which may be deleted. Equal arguments give equal bytes.

    Args:
        path: the file to make; replaced if it exists. Its directory must exist.
        problem: names the layout.
        rows: how many rows will be appended in all, at least 1.
        times: [t] time of each frame, at least 2 and equally spaced. PDEBench's surplus stamp is added here.
            None for a map.
        coordinates: cell centres of the domain, one [points] per space axis.
        parameters: the equation's numbers by our names, all of them.
        boundary: one that the problem can have.
        attributes: provenance to keep with the data (seed, generator, ...).
        original_rows: [rows] numbers of the rows in the file they were cut from.

    Raises:
        DataError: arguments that the layout cannot hold, a value that the field cannot have, or another number
            of rows than announced.
        StorageError: the operating system failed to write.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        problem: ProblemName,
        rows: int,
        times: NDArray[np.floating] | None,
        coordinates: Sequence[NDArray[np.floating]],
        parameters: Mapping[str, float],
        boundary: Boundary,
        attributes: Mapping[str, str | int | float] | None = None,
        original_rows: NDArray[np.integer] | None = None,
    ) -> None:
        self.path = Path(path)
        self.problem = problem_named(problem)
        self.rows = rows
        self.written = 0
        if rows < 1:
            raise DataError(f"cannot hold {rows} rows", where=str(self.path), fix="write at least one row")
        self._coordinates = self._checked_coordinates(coordinates)
        self._times = self._checked_times(times)
        self._attributes = self._checked_attributes(parameters, boundary, attributes or {})
        self._original_rows = None if original_rows is None else np.asarray(original_rows, dtype=np.int64)
        if self._original_rows is not None:
            check_original_rows(self._original_rows, rows, self.path)
        self._file: h5py.File | None = None
        self._arrays: list[h5py.Dataset] = []
        self._temporary: Path | None = None

    def __enter__(self) -> Self:
        self._temporary = self.path.with_name(f".{self.path.name}.{secrets.token_hex(8)}.partial")
        try:
            with _as_storage_error(self.path):
                self._create(self._temporary)
        except BaseException:
            self._discard()
            raise
        return self

    def append(self, fields: NDArray[np.floating]) -> None:
        """Write the next rows, [n, t, *grid, C] in primitive variables, rounded to float32.

        A map has t = 1: the frame in which all fields are known.
        """
        if self._file is None:
            raise ValueError("append() is for the inside of a `with TrajectoryWriter(...)` block")
        expected = (self._frames, *self._grid, len(self.problem.fields))
        if fields.shape[1:] != expected:
            raise DataError(
                f"fields have shape {fields.shape}, the file [n, {', '.join(map(str, expected))}]",
                where=str(self.path),
                fix="give [n, t, *grid, C] with one entry per time, coordinate and field",
            )
        rows = slice(self.written, self.written + len(fields))
        if rows.stop > self.rows:
            raise self._other_number_of_rows(rows.stop)
        with np.errstate(over="ignore"):  # what overflows float32 is reported next, as not finite
            rounded = np.asarray(fields, dtype="<f4")
        for channel, (field, array) in enumerate(zip(self.problem.fields, self.problem.arrays, strict=True)):
            where = place(self.path, array.key)
            numbers = np.arange(rows.start, rows.stop)
            check_values(rounded[..., channel], field, numbers, where, timed=self._times is not None)
        with _as_storage_error(self.path):
            for channel, array in enumerate(self._arrays):
                array[rows] = rounded[..., channel].reshape(len(rounded), *array.shape[1:])
        self.written = rows.stop

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._publish()
        finally:
            self._discard()

    @property
    def _grid(self) -> tuple[int, ...]:
        return tuple(len(axis) for axis in self._coordinates)

    @property
    def _frames(self) -> int:
        return 1 if self._times is None else len(self._times)

    def _checked_coordinates(self, given: Sequence[NDArray[np.floating]]) -> list[NDArray[np.float64]]:
        axes = self.problem.axes
        if len(given) != len(axes):
            raise DataError(
                f"{self.problem.name} has the space axes {', '.join(axes)}, got {len(given)} coordinates",
                where=str(self.path),
                fix="pass a sequence with one array per space axis",
            )
        coordinates = [np.asarray(axis, dtype=np.float64) for axis in given]
        for values, axis, domain in zip(coordinates, axes, self.problem.domain, strict=True):
            check_coordinates(values, domain, self.path, self.problem.coordinate_key(axis))
        return coordinates

    def _checked_times(self, given: NDArray[np.floating] | None) -> NDArray[np.float64] | None:
        key = self.problem.time_key
        if (given is None) != (key is None):
            raise DataError(
                f"{self.problem.name} has {'no times' if key is None else 'times'}",
                where=str(self.path),
                fix=f"pass times={'None' if key is None else '[t]'}",
            )
        if given is None or key is None:
            return None
        times = np.asarray(given, dtype=np.float64)
        check_times(times, self.path, key)
        return times

    def _checked_attributes(
        self,
        parameters: Mapping[str, float],
        boundary: Boundary,
        provenance: Mapping[str, str | int | float],
    ) -> dict[str, str | int | float]:
        check_parameter_names(set(parameters), self.problem, self.path, all_of_them=True)
        checked = parameters_of(self.problem, {}, parameters, self.path)
        layout: dict[str, str | int | float] = {
            PROBLEM_ATTRIBUTE: self.problem.name,
            BOUNDARY_ATTRIBUTE: boundary_of(self.problem, None, boundary, self.path),
        }
        layout |= {parameter.attribute: checked[parameter.name] for parameter in self.problem.parameters}
        for name in sorted(layout.keys() & provenance.keys()):
            raise DataError(
                f"attribute {name} belongs to the layout",
                where=str(self.path),
                fix="give it once, as problem, parameters or boundary",
            )
        return layout | dict(provenance)

    def _create(self, path: Path) -> None:
        self._file = h5py.File(path, "x")
        lengths = {"sample": self.rows, "time": self._frames, "channel": 1}
        lengths |= dict(zip(self.problem.axes, self._grid, strict=True))
        self._arrays = [
            self._file.create_dataset(array.key, [lengths[axis] for axis in array.axes], dtype="<f4")
            for array in self.problem.arrays
        ]
        for axis, values in zip(self.problem.axes, self._coordinates, strict=True):
            self._file.create_dataset(self.problem.coordinate_key(axis), data=values.astype("<f4"))
        if self._times is not None and self.problem.time_key is not None:
            surplus = self._times[-1] + (self._times[-1] - self._times[0]) / (len(self._times) - 1)
            self._file.create_dataset(
                self.problem.time_key, data=np.append(self._times, surplus).astype("<f4")
            )
        if self._original_rows is not None:
            self._file.create_dataset(ORIGINAL_ROWS, data=self._original_rows.astype("<i8"))
        for name, value in self._attributes.items():
            # Fixed-length text lies in the header itself; h5py would put it on a heap.
            self._file.attrs[name] = np.bytes_(value.encode()) if isinstance(value, str) else value

    def _publish(self) -> None:
        if self.written != self.rows:
            raise self._other_number_of_rows(self.written)
        assert self._file is not None
        assert self._temporary is not None
        with _as_storage_error(self.path):
            self._file.close()
            publish(self._temporary, self.path)

    def _other_number_of_rows(self, given: int) -> DataError:
        return DataError(
            f"{given} rows were given, {self.rows} announced",
            where=str(self.path),
            fix="announce as many rows as are appended",
        )

    def _discard(self) -> None:
        if self._file is not None:
            # After a failed write closing fails too; the error that matters is already on its way.
            with contextlib.suppress(OSError, RuntimeError):
                self._file.close()
            self._file, self._arrays = None, []
        if self._temporary is not None:
            self._temporary.unlink(missing_ok=True)
            self._temporary = None


@contextlib.contextmanager
def _as_storage_error(path: Path) -> Iterator[None]:
    """h5py raises OSError, and RuntimeError where it fails while closing."""
    try:
        yield
    except OSError as error:
        raise storage_error(error, path) from error
    except RuntimeError as error:
        raise storage_error(OSError(str(error)), path) from error
