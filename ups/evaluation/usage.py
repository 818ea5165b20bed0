"""What the user of a surrogate must know of a problem: its points and times, its parameters, and what it was trained on."""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ups.data.dataset import (
    StoredTrajectories,
    conditioning_scalars,
    read_description,
    stored_trajectories,
    time_step,
)
from ups.errors import DataError
from ups.models.shape import ProblemShape
from ups.problems import Field, Problem

_BEYOND = 10.0
"""A field so many times larger or smaller than any of the training is in other units, by the looks of it."""


class OutsideTraining(UserWarning):
    """What is asked for is unlike all that the networks were trained on."""


@dataclass(frozen=True)
class Usage:
    """How the surrogate of one problem is used.

    Attributes:
        shape: equation, variables, grid and boundary, as the networks were made for them.
        title: of the data that it was trained on.
        coordinates: of the grid's points, one list per space axis.
        time_step: between frames; 1 for a map.
        frames: of the trajectories of the training.
        parameters: of the equation, that it was trained on.
        sizes: smallest and largest root mean square of each field that is given, over first frames of the validation split.
    """

    shape: ProblemShape
    title: str
    coordinates: tuple[tuple[float, ...], ...]
    time_step: float
    frames: int
    parameters: dict[str, float]
    sizes: dict[str, tuple[float, float]]

    @property
    def problem(self) -> Problem:
        return self.shape.problem

    @property
    def fields(self) -> tuple[Field, ...]:
        """All, in the order of the channels."""
        return self.shape.fields

    @property
    def given(self) -> tuple[Field, ...]:
        """Those that a forecast starts from."""
        return tuple(field for field in self.fields if field.given or not self.problem.is_map)

    @property
    def forecast(self) -> tuple[Field, ...]:
        """Those that are forecast."""
        return tuple(field for field in self.fields if not field.given)

    @property
    def grid(self) -> tuple[int, ...]:
        return self.shape.grid

    def steps(self, steps: int | None, times: Sequence[float] | None) -> list[int]:
        """The steps after the first frame that are asked for, by number or by time; None, None: as many as in the training.

        Raises:
            DataError: both are given; a time is no multiple of the time step; a map has no steps.
        """
        if self.problem.is_map:
            if steps is not None or times is not None:
                raise DataError(
                    f"{self.problem.title} has no time", where="forecast", fix="give neither steps nor times"
                )
            return [1]
        if steps is not None and times is not None:
            raise DataError("got steps and times", where="forecast", fix="give one of them")
        if times is None:
            count = self.frames - 1 if steps is None else steps
            if isinstance(count, bool) or int(count) != count or count < 1:
                raise DataError(
                    f"{steps!r} is no number of steps", where="forecast: steps", fix="give 1 or more"
                )
            return list(range(1, int(count) + 1))
        wanted = np.asarray(times, dtype=np.float64).reshape(-1)
        numbers = np.rint(wanted / self.time_step)
        wrong = (numbers < 1) | (np.abs(numbers * self.time_step - wanted) > 1e-4 * self.time_step)
        if not len(wanted) or wrong.any() or (np.diff(numbers) <= 0).any():
            raise DataError(
                f"{list(times)} are no ascending multiples of the time step {self.time_step:g}",
                where="forecast: times",
                fix=f"give times after the first frame, as {self.time_step:g}, {2 * self.time_step:g}, ...; "
                "what lies between them is to be interpolated by you",
            )
        return [int(number) for number in numbers]

    def checked_parameters(self, given: Mapping[str, float] | None) -> dict[str, float]:
        """All parameters by name, those that are not given as in the training.

        Raises:
            DataError: there is no such parameter, or its logarithm does not exist.
        """
        unknown = sorted(set(given or {}) - set(self.parameters))
        if unknown:
            raise DataError(
                f"{self.problem.title} has no parameter {', '.join(unknown)}",
                where="forecast: parameters",
                fix=f"it has {', '.join(self.parameters) or 'none'}",
            )
        values = self.parameters | {name: float(value) for name, value in (given or {}).items()}
        for name, value in values.items():
            if not (math.isfinite(value) and value > 0):
                raise DataError(
                    f"{value!r} has no logarithm, and the networks are told that",
                    where=f"forecast: parameters: {name}",
                    fix=f"give a positive number; trained with {self.parameters[name]:g}",
                )
            if not math.isclose(value, self.parameters[name], rel_tol=1e-6):
                warnings.warn(
                    f"{name} = {value:g}: the networks were trained with {self.parameters[name]:g}",
                    OutsideTraining,
                    stacklevel=4,
                )
        return values

    def scalars(self, parameters: Mapping[str, float]) -> list[float]:
        """What the networks are told of a time step and parameters."""
        return conditioning_scalars(self.problem, np.array([0.0, self.time_step]), dict(parameters))

    def checked_fields(self, values: NDArray[np.float32]) -> None:
        """Look at first frames [n, *grid, C].

        Raises:
            DataError: a value is not finite, or is none that the field can have.
        """
        for channel, field in enumerate(self.fields):
            if field not in self.given:
                continue
            where, part = f"forecast: {field.name}", values[..., channel]
            if not np.isfinite(part).all():
                raise DataError("has values that are not finite", where=where)
            if field.positive and part.min() <= 0:
                raise DataError(
                    f"has values down to {part.min():g}, and is positive",
                    where=where,
                    fix="look at order and units",
                )
            axes = tuple(range(1, part.ndim))
            size = np.sqrt(np.square(part, dtype=np.float64).mean(axis=axes))
            smallest, largest = self.sizes[field.name]
            if (size > _BEYOND * largest).any() or (size * _BEYOND < smallest).any():
                warnings.warn(
                    f"{field.name} has root mean squares of {size.min():.3g} to {size.max():.3g} ({field.unit}), the data of the "
                    f"training {smallest:.3g} to {largest:.3g}: is it in other units?",
                    OutsideTraining,
                    stacklevel=4,
                )

    def numbers(self, coordinates: Any, argument: str) -> NDArray[np.float64]:
        """Coordinates in an array, of any shape.

        Raises:
            DataError: they are no numbers, lists of them have different lengths, or one is not finite.
        """
        where, fix = f"forecast: {argument}", f"give [points, {len(self.grid)}] coordinates as numbers"
        try:
            given = np.asarray(coordinates, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise DataError(f"is no array of numbers: {error}", where=where, fix=fix) from error
        wrong = np.count_nonzero(~np.isfinite(given))
        if wrong:
            raise DataError(
                f"has {wrong} coordinates that are not finite", where=where, fix="leave those points out"
            )
        return given

    def places(self, points: Any, argument: str = "points") -> NDArray[np.float32]:
        """Coordinates of points, [Q] on a line or [Q, axes], as the decoder counts them: [Q, axes] in domain lengths.

        argument: of `forecast`, by which messages name them.

        Every point of the grid is the centre of its cell there, see `ups.evaluation.finer_grid`.

        Raises:
            DataError: they are no numbers, not finite or of another shape, or a point lies outside the domain.
        """
        axes = len(self.grid)
        given = self.numbers(points, argument)
        if given.ndim == 1 and axes == 1:
            given = given[:, None]
        if given.ndim != 2 or given.shape[1] != axes or not len(given):
            raise DataError(
                f"have shape {np.shape(points)}",
                where=f"forecast: {argument}",
                fix=f"give [Q, {axes}] coordinates" + (", or [Q]" if axes == 1 else ""),
            )
        for axis, (lower, upper) in enumerate(self.problem.domain):
            outside = (given[:, axis] < lower) | (given[:, axis] > upper)
            if outside.any():
                raise DataError(
                    f"{given[outside, axis][0]:g} is outside the domain, {lower:g} to {upper:g}",
                    where=f"forecast: {argument}: {self.problem.axes[axis]}",
                )
        lengths = np.array([upper - lower for lower, upper in self.problem.domain])
        starts = np.array([axis[0] for axis in self.coordinates])
        return ((given - starts) / lengths + 0.5 / np.array(self.grid)).astype(np.float32)

    @classmethod
    def from_json(cls, values: Mapping[str, Any], shape: ProblemShape) -> "Usage":
        coordinates = tuple(tuple(axis) for axis in values["coordinates"])
        sizes = {name: (low, high) for name, (low, high) in values["sizes"].items()}
        return cls(**{**values, "shape": shape, "coordinates": coordinates, "sizes": sizes})

    def to_json(self) -> dict[str, Any]:
        """Without the shape, which the networks' descriptions have."""
        return {name: value for name, value in vars(self).items() if name != "shape"}


def usages_of(download: Path, shapes: Mapping[str, ProblemShape]) -> dict[str, Usage]:
    """Of each problem of a download artifact; first frames of its validation split are read."""
    return {
        name: _usage(stored_trajectories(download, described, ("validation",)), shapes[name])
        for name, described in read_description(download).items()
    }


def _usage(stored: StoredTrajectories, shape: ProblemShape) -> Usage:
    about = stored.about
    problem, times = about["problem"], about["times"]
    first = stored.read(np.arange(len(about["rows"])), frames=None if problem.is_map else 1)[:, 0]
    return Usage(
        shape=shape,
        title=about["title"],
        coordinates=tuple(tuple(map(float, axis)) for axis in about["coordinates"]),
        time_step=time_step(problem, times),
        frames=len(times),
        parameters=dict(about["parameters"]),
        sizes=_sizes(about["names"], first, about["known"][0]),
    )


def _sizes(
    names: Sequence[str], first: NDArray[np.float32], known: NDArray[np.bool_]
) -> dict[str, tuple[float, float]]:
    axes = tuple(range(1, first.ndim - 1))
    sizes = np.sqrt(np.square(first, dtype=np.float64).mean(axis=axes))
    return {
        name: (float(sizes[:, channel].min()), float(sizes[:, channel].max()))
        for channel, name in enumerate(names)
        if known[channel]
    }
