"""What a file must satisfy, the same for its reader and its writer: axes, values, parameters, boundary.

Every check takes what `ups.problems` declares and raises a DataError that names the file, the dataset, and
what to do. Nothing is inferred from a shape.
"""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ups.errors import DataError
from ups.problems import PROBLEMS, Boundary, Field, Problem, StoredArray
from ups.problems.problem import ORIGINAL_ROWS

BOUNDARY_ATTRIBUTE = "boundary"
PROBLEM_ATTRIBUTE = "problem"
"""Attributes that only our own files have: genuine ones lack both."""

LARGEST = 1e12
"""No quantity of the problems comes near; its square and a sum of squares still fit into float32."""

# Coordinates are float32 sums of steps; a hundredth of a step is far above their rounding and far below
# any other spacing.
_COORDINATE_TOLERANCE = 0.01


def problem_named(name: str) -> Problem:
    """The declaration of a problem.

    Raises:
        ValueError: there is none of this name.
    """
    if name not in PROBLEMS:
        raise ValueError(f"problem must be one of {', '.join(PROBLEMS)}, got {name!r}")
    return PROBLEMS[name]


def place(path: Path, dataset: str) -> str:
    """A dataset of a file, as messages call it."""
    return f"{path}, dataset {dataset}"


def axes_text(array: StoredArray) -> str:
    return f"[{', '.join('1' if axis == 'channel' else axis for axis in array.axes)}]"


def cell_centres(points: int, domain: tuple[float, float]) -> NDArray[np.float64]:
    """Centres of equal cells, [points]."""
    lower, upper = domain
    return lower + (np.arange(points, dtype=np.float64) + 0.5) * ((upper - lower) / points)


def check_coordinates(
    coordinates: NDArray[np.float64], domain: tuple[float, float], path: Path, dataset: str
) -> None:
    """Coordinates [points] of one axis lie alike in equal cells of its domain, one in each.

    In PDEBench's files at their centres; of every n-th point of such a grid, at the same place nearer to the left end.
    """
    if coordinates.ndim != 1 or len(coordinates) == 0:
        raise DataError(
            f"has shape {coordinates.shape}, not one axis with a point or more",
            where=place(path, dataset),
            fix="give one coordinate per point of the axis",
        )
    lower, upper = domain
    step = (upper - lower) / len(coordinates)
    description = f"equally spaced, a point in each of {len(coordinates)} equal cells of the domain from {lower:g} to {upper:g}"
    first = np.clip(coordinates[0], lower, upper - step * (len(coordinates) - 1))
    expected = first + step * np.arange(len(coordinates))
    _check_spacing(coordinates, expected, step, place(path, dataset), description)


def check_times(times: NDArray[np.float64], path: Path, dataset: str) -> None:
    """Times [t] of the frames are equally spaced, and there are two or more."""
    where = place(path, dataset)
    if times.ndim != 1 or len(times) < 2:
        raise DataError(
            f"has shape {times.shape}, not [t] with two frames or more",
            where=where,
            fix="a trajectory needs a frame to start from and one to predict",
        )
    interval = (times[-1] - times[0]) / (len(times) - 1)
    if not interval > 0:
        raise DataError("does not increase", where=where, fix="download the file again")
    with np.errstate(invalid="ignore"):
        expected = times[0] + interval * np.arange(len(times))
    _check_spacing(times, expected, interval, where, "equally spaced")


def _check_spacing(
    values: NDArray[np.float64], expected: NDArray[np.float64], step: float, where: str, description: str
) -> None:
    with np.errstate(invalid="ignore"):
        wrong = ~(np.abs(values - expected) <= _COORDINATE_TOLERANCE * step)  # also catches NaN
    if wrong.any():
        first = int(np.argmax(wrong))
        raise DataError(
            f"is not {description}: entry {first} is {values[first]:.9g}, expected {expected[first]:.9g}",
            where=where,
            fix="check that the file is complete and has PDEBench's grid",
        )


def check_values(
    values: NDArray[np.float32], field: Field, rows: NDArray[np.int64], where: str, *, timed: bool
) -> None:
    """Values [n, t, *grid] of one field are finite, not absurd, and positive where the field is.

    `rows` [n] are the numbers to call the rows by; `timed` says whether a frame has a number to be named.
    """
    if values.size == 0:
        return
    smallest = np.finfo(np.float32).smallest_subnormal if field.positive else -LARGEST
    if values.min() >= smallest and values.max() <= LARGEST:  # both are NaN where any value is
        return
    wrong = ~((values >= smallest) & (values <= LARGEST))
    frames = np.argwhere(wrong.any(axis=tuple(range(2, values.ndim))))
    row, frame = frames[0]
    value = float(values[row, frame][wrong[row, frame]][0])
    reason = "is not finite"
    if math.isfinite(value):
        reason = "is absurdly large" if abs(value) > LARGEST else f"is no {field.name}, which is positive"
    at = f" at frame {frame}" if timed else ""
    raise DataError(
        f"row {rows[row]} holds {value:g}{at}, which {reason} ({len(frames)} such {'frames' if timed else 'rows'})",
        where=where,
        fix="leave the row out, or download the file again",
    )


def check_original_rows(numbers: NDArray[np.int64], rows: int, path: Path) -> None:
    """One row number of another file for each of our rows, none twice."""
    if numbers.shape != (rows,) or (numbers < 0).any() or len(np.unique(numbers)) != rows:
        raise DataError(
            f"are not {rows} different row numbers from 0 upwards",
            where=place(path, ORIGINAL_ROWS),
            fix="give the number that each row has in the file it was cut from",
        )


def check_parameter_names(names: set[str], problem: Problem, path: Path, *, all_of_them: bool) -> None:
    """The caller's parameters are the problem's: every one of them, or none besides."""
    known = [parameter.name for parameter in problem.parameters]
    if names - set(known) or (all_of_them and names != set(known)):
        plural = "parameters" if len(known) > 1 else "parameter"
        example = ", ".join(f'"{name}": value' for name in known)
        raise DataError(
            f"{problem.name} has the {plural} {' and '.join(known)}, got {', '.join(sorted(names)) or 'none'}",
            where=str(path),
            fix=f"pass parameters={{{example}}}",
        )


def checked_parameter(value: float, name: str, path: Path) -> float:
    """One number of the equation: finite, from 0 upwards."""
    if not (math.isfinite(value) and value >= 0):
        raise DataError(
            f"{name} is {value!r}, not one finite number from 0 upwards",
            where=str(path),
            fix="correct the value",
        )
    return float(value)


def parameters_of(
    problem: Problem, stored: Mapping[str, float | None], given: Mapping[str, float] | None, path: Path
) -> dict[str, float]:
    """The equation's numbers: those of the file (by attribute), and where it has none those of the caller."""
    given = given or {}
    check_parameter_names(set(given), problem, path, all_of_them=False)
    found: dict[str, float] = {}
    for parameter in problem.parameters:
        name, attribute = parameter.name, parameter.attribute
        value = stored.get(attribute)
        if value is not None:
            found[name] = checked_parameter(value, attribute, path)
            if name in given and not math.isclose(given[name], found[name], rel_tol=1e-6):
                raise DataError(
                    f"attribute {attribute} is {found[name]:g}, but {given[name]:g} was expected",
                    where=str(path),
                    fix="correct the expected value, or use the file that has it",
                )
        elif name in given:
            found[name] = checked_parameter(given[name], name, path)
        else:
            raise DataError(
                f"has no attribute {attribute}",
                where=str(path),
                fix=f'write it into the file, attrs["{attribute}"] = value: its name is not trusted',
            )
    return found


def boundary_of(problem: Problem, stored: str | None, given: Boundary | None, path: Path) -> Boundary:
    """The boundary: the file's, where it says; else the caller's; else the problem's only one."""
    possible = " or ".join(problem.boundaries)
    for value, origin in (
        (stored, f"attribute {BOUNDARY_ATTRIBUTE}"),
        (given, "the boundary that was given"),
    ):
        if value is not None and value not in problem.boundaries:
            raise DataError(
                f"{origin} is {value!r}, and {problem.name} has {possible}",
                where=str(path),
                fix="check that the file belongs to the problem, and the boundary that was given",
            )
    if stored is not None and given is not None and stored != given:
        raise DataError(
            f"attribute {BOUNDARY_ATTRIBUTE} is {stored}, but {given} was expected",
            where=str(path),
            fix="correct the expected boundary, or use the file that has it",
        )
    chosen = stored or given
    for boundary in problem.boundaries:
        if boundary == chosen or (chosen is None and len(problem.boundaries) == 1):
            return boundary
    raise DataError(
        f"has no attribute {BOUNDARY_ATTRIBUTE}, and {problem.name} has {possible}",
        where=str(path),
        fix=f'write it into the file, attrs["{BOUNDARY_ATTRIBUTE}"] = "{problem.boundaries[0]}", or say it: `boundary` in '
        "the data of a configuration, --boundary of `ups data check`; in the names of PDEBench's files, outflow is "
        "called trans",
    )
