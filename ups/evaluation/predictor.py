"""Forecasts for users: fields in and fields out, in physical units, by name.

surrogate = ups.load("runs/20261128T101500Z-burgers_demo-1a2b3c4d")
forecast = surrogate.forecast({"u": u}, steps=40, parameters={"nu": 0.01}, model="diffusion", members=32)
forecast.mean["u"], forecast.spread["u"], forecast.times, forecast.provenance
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ups.config.conditioning import ROW as CONDITIONED
from ups.data.problem_inputs import known_mask, scalars_tensor
from ups.errors import ConfigurationError, DataError, PreflightError
from ups.evaluation.conditioning import Conditioner
from ups.evaluation.evaluation_set import ForecastInputs
from ups.evaluation.finer_grid import strided
from ups.evaluation.forecaster import Forecaster
from ups.evaluation.opening import open_trained
from ups.evaluation.rollout import decoded_rollout
from ups.evaluation.trained import NOT_KEPT, Trained
from ups.evaluation.usage import Usage
from ups.runtime.randomness import torch_generator
from ups.runtime.ranks import device_name

_ROWS_AT_ONCE = 64
"""Trajectories: larger batches leave a core's cache, and take longer."""

Array = Any
"""NumPy's, torch's, or a DataArray of xarray."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """Forecasts of n first frames.

    Attributes:
        mean: by field, [n, t, *grid], or [n, t, Q] at points; of a map without t. The mean of the members.
        spread: likewise, the deviation over members; None of a model that has one.
        members: by field, [n, members, t, ...]; None where they were not asked for.
        times: [t] after the first frame; empty for a map.
        coordinates: by space axis, of the grid or of each point.
        at_points: whether the last axis is of points.
        units: of each field.
        provenance: run, model, members, seed, parameters, digests of the artifacts.
    """

    mean: dict[str, Array]
    spread: dict[str, Array] | None
    members: dict[str, Array] | None
    times: NDArray[np.float64]
    coordinates: dict[str, NDArray[np.float64]]
    at_points: bool
    units: dict[str, str]
    provenance: dict[str, Any]

    def to_xarray(self) -> Any:
        """An xarray.Dataset: a variable for each field, NAME_spread and NAME_members where there are such.

        Raises:
            ModuleNotFoundError: xarray is not installed.
        """
        import xarray

        space = ("point",) if self.at_points else tuple(self.coordinates)
        time = ("time",) if len(self.times) else ()
        variables: dict[str, Any] = {}
        for name, unit in self.units.items():
            about = {"units": unit}
            variables[name] = (("sample", *time, *space), np.asarray(self.mean[name]), about)
            if self.spread is not None:
                variables[f"{name}_spread"] = (
                    ("sample", *time, *space),
                    np.asarray(self.spread[name]),
                    about,
                )
            if self.members is not None:
                dims = ("sample", "member", *time, *space)
                variables[f"{name}_members"] = (dims, np.asarray(self.members[name]), about)
        coordinates: dict[str, Any] = {"time": ("time", self.times)} if time else {}
        for axis, values in self.coordinates.items():
            coordinates[axis] = ("point" if self.at_points else axis, values)
        attributes = {name: str(value) for name, value in self.provenance.items()}
        return xarray.Dataset(variables, coordinates, attributes)


def load(path: str | Path, *, device: str = "auto") -> "Predictor":
    """The surrogate of a finished run, of a file that `ups export` wrote, or one that comes with the library, ready to forecast.

    path: directory of the run, the file, or a name such as "burgers_demo". device: auto (a GPU if there is one), cpu or cuda.

    Raises:
        ConfigurationError: there is no finished run, file or model of this name.
        IntegrityError: what is there is damaged.
        PreflightError: there is no such device here.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigurationError(f"{device!r} is no device", where="device", fix="give auto, cpu or cuda")
    has_gpu = torch.cuda.is_available()
    if device == "cuda" and not has_gpu:
        raise PreflightError("torch finds no GPU here", where="device", fix="give cpu or auto")
    chosen = "cuda" if has_gpu and device != "cpu" else "cpu"
    trained = open_trained(Path(path), chosen)
    return Predictor(trained, chosen)


class Predictor:
    """The networks of a run, ready to forecast; see `ups.load`."""

    def __init__(self, trained: Trained, device: str) -> None:
        self._trained, self.device = trained, device
        self.surrogate, self.usages, self.provenance = trained.surrogate, trained.usages, trained.provenance
        self.results = trained.results
        """Records of the table of its run, each with its convention."""

    @property
    def problems(self) -> list[str]:
        """Names of what can be forecast."""
        return list(self.usages)

    def models(self, problem: str | None = None) -> list[str]:
        """Names of the models of a problem, as in the result table."""
        name = self._problem(problem)
        conditioned = [CONDITIONED] if name in self._trained.fits else []
        return [model.name for model in self.surrogate.forecasters(name)] + conditioned

    def usage(self, problem: str | None = None) -> Usage:
        """Grid, time step, parameters and fields of a problem; None: of the only one."""
        return self.usages[self._problem(problem)]

    @torch.no_grad()
    def forecast(
        self,
        fields: Array | Mapping[str, Array],
        *,
        steps: int | None = None,
        times: Sequence[float] | None = None,
        parameters: Mapping[str, float] | None = None,
        points: Array | None = None,
        at: Array | None = None,
        model: str = "operator",
        members: int | None = None,
        keep_members: bool = False,
        problem: str | None = None,
        seed: int = 0,
    ) -> Prediction:
        """Forecast from first frames, in physical units.

        Args:
            fields: by name, each [n, *grid] or [*grid] of one; a Dataset of xarray is such a mapping. An array by itself where
                only one field is given. On the model's grid, or on one that contains it: every k-th point is taken, as in the training.
                Coordinates of xarray are checked.
            steps: after the first frame; None: as many as in the training. times: which of them, by their time.
            parameters: of the equation, by name; those that are not given are those of the training.
            points: [Q, axes] (or [Q]) coordinates where the forecast is wanted; None: on the grid.
            at: [P, axes] (or [P]) coordinates of the fields' own points, or [n, P, axes], which differ; the fields are [n, P] then.
                For surrogates with `model.encoder: points`, of any number of points all over the domain. None: on the grid.
            model: a row of the result table, see `models`. "ttc" is test-time conditioning as in the run's own evaluation.
            members: of an ensemble; None: as in evaluation.
            keep_members: return them all, beside mean and spread.
            problem: where the run has several.
            seed: of the ensemble's noise. Equal calls give equal numbers; not those of "ttc" with a budget of seconds.

        Returns:
            Arrays of NumPy, or of torch where torch was given.

        Raises:
            ConfigurationError: there is no such problem or model.
            DataError: a field, parameter, point or time is missing, unknown or impossible; says which.

        Warns:
            OutsideTraining: parameters or amplitudes are unlike those of the training.
        """
        name = self._problem(problem)
        usage = self.usages[name]
        wanted = usage.steps(steps, times)
        values = usage.checked_parameters(parameters)
        first = _first_frames(usage, fields, on_grid=at is None)
        usage.checked_fields(first)
        if at is not None:
            first = self._from_points(name, first, _numpy(at))
        places = None if points is None else usage.places(_numpy(points))
        forecaster = self._forecaster(name, model, members)
        inputs = self._inputs(name, wanted[-1], values)
        if forecaster is None:
            decoded = self._conditioned(inputs, first, places, seed)
        else:
            decoded = self._decoded(forecaster, inputs, first, places, seed)
        decoded = decoded[:, :, [step - 1 for step in wanted]]
        if usage.problem.is_map:
            decoded = decoded[:, :, 0]

        def by_field(part: Tensor) -> dict[str, Array]:
            return {field.name: part[..., usage.fields.index(field)] for field in usage.forecast}

        as_given: Callable[[Tensor], Array] = (lambda part: part) if _is_torch(fields) else Tensor.numpy
        size = 1 if forecaster is None else forecaster.members
        each = by_field(decoded if points is not None else decoded.unflatten(-2, usage.grid))
        axes = usage.problem.axes
        return Prediction(
            mean={name: as_given(part.mean(dim=1)) for name, part in each.items()},
            spread={name: as_given(part.std(dim=1)) for name, part in each.items()} if size > 1 else None,
            members={name: as_given(part) for name, part in each.items()} if keep_members else None,
            times=np.array([] if usage.problem.is_map else [step * usage.time_step for step in wanted]),
            coordinates=dict(
                zip(
                    axes,
                    map(np.asarray, usage.coordinates)
                    if points is None
                    else np.asarray(_numpy(points), dtype=np.float64).reshape(-1, len(axes)).T,
                    strict=True,
                )
            ),
            at_points=points is not None,
            units={field.name: field.unit for field in usage.forecast},
            provenance=self.provenance
            | {
                "problem": name,
                "data": usage.title,
                "model": model,
                "members": size,
                "seed": seed,
                "parameters": values,
                "device": device_name(torch.device(self.device)),
            },
        )

    def _from_points(self, problem: str, values: NDArray[np.float32], at: Array) -> NDArray[np.float32]:
        """Values [n, P, C] at coordinates [P, axes] or [n, P, axes] to first frames [n, *grid, C].

        Raises:
            ConfigurationError: the surrogate encodes whole frames.
            DataError: coordinates are no numbers, outside the domain, not as many as values, or leave a part of the domain empty.
        """
        codec, usage = self.surrogate.codec.of(problem), self.usages[problem]
        if codec.autoencoder.encoder.points is None:
            raise ConfigurationError(
                "the surrogate was trained to encode fields on its grid",
                where="forecast: at",
                fix="give fields on the grid without it, or train with model.encoder: {kind: points, ...}",
            )
        given = usage.numbers(at, "at")
        sets = given if given.ndim == 3 else given[None]
        if sets.shape[1:2] != values.shape[1:2] or len(sets) not in {1, len(values)}:
            raise DataError(
                f"has shape {given.shape}, and fields have {values.shape[1]} points in {len(values)} trajectories",
                where="forecast: at",
                fix=f"give [{values.shape[1]}, {len(usage.grid)}], or as many of them as trajectories",
            )
        places = np.stack([usage.places(each, "at") for each in sets])
        places = np.broadcast_to(places, (len(values), *places.shape[1:])).copy()
        device = torch.device(self.device)
        parts = [
            codec.from_points(
                torch.from_numpy(values[rows, None]).to(device), torch.from_numpy(places[rows]).to(device)
            )
            for rows in np.array_split(np.arange(len(values)), -(-len(values) // _ROWS_AT_ONCE))
        ]
        return torch.cat(parts)[:, 0].cpu().numpy()

    def _inputs(self, problem: str, steps: int, parameters: dict[str, float]) -> ForecastInputs:
        usage, device = self.usages[problem], torch.device(self.device)
        known = known_mask(np.array([field in usage.given for field in usage.fields]), device)
        scalars = scalars_tensor(usage.scalars(parameters), device)
        coordinates = tuple(map(np.asarray, usage.coordinates))
        return ForecastInputs(
            problem, known, scalars, steps, usage.time_step, parameters, coordinates, sampled=False
        )

    def _conditioned(
        self,
        inputs: ForecastInputs,
        first: NDArray[np.float32],
        places: NDArray[np.float32] | None,
        seed: int,
    ) -> Tensor:
        """Forecasts [n, 1, steps, Q, C] of first frames [n, *grid, C], on the host, as the run's evaluation conditions them.

        Raises:
            ConfigurationError: they are wanted at points.
            DataError: more steps are wanted than were fitted.
        """
        if places is not None:
            raise ConfigurationError(
                f"{CONDITIONED} obeys the equation on the model's grid",
                where="forecast: points",
                fix="leave them out, or choose another model",
            )
        fitted, wanted = self._trained.fits[inputs.problem], inputs.steps
        if wanted > len(fitted.gate):
            raise DataError(
                f"asks for {wanted} steps, and conditioning was fitted for {len(fitted.gate)}",
                where="forecast",
                fix=f"ask for at most {len(fitted.gate)} steps",
            )
        whole = replace(inputs, steps=len(fitted.gate))
        conditioner = Conditioner(self.surrogate, whole, self._trained.evaluation, seed=seed)
        parts = [
            # Of a few frames the first candidates may take longer than max_seconds of each, and are drawn all the same.
            conditioner.conditioned(
                conditioner.candidates(part.to(self.device), measuring=True), fitted
            ).cpu()
            for part in torch.from_numpy(first).split(conditioner.batch)
        ]
        return torch.cat(parts)[:, None, :wanted]

    def _decoded(
        self,
        forecaster: Forecaster,
        inputs: ForecastInputs,
        first: NDArray[np.float32],
        places: NDArray[np.float32] | None,
        seed: int,
    ) -> Tensor:
        """Forecasts [n, members, steps, Q, C] of first frames [n, *grid, C], on the host.

        places: see `Usage.places`.
        """
        codec, device = self.surrogate.codec.of(inputs.problem), torch.device(self.device)
        if places is not None and codec.shape.boundary == "periodic":
            places = places % 1
        parts = [
            decoded_rollout(
                forecaster,
                codec,
                torch.from_numpy(first[start : start + _ROWS_AT_ONCE]).to(device),
                inputs.known,
                inputs.scalars,
                inputs.steps,
                time_step=inputs.time_step,
                parameters=inputs.parameters,
                coordinates=None if places is None else torch.from_numpy(places).to(device),
                # A row has the same noise whatever rows come before its batch.
                generator=torch_generator(seed, "forecast", start, device=device),
            ).cpu()
            for start in range(0, len(first), _ROWS_AT_ONCE)
        ]
        return torch.cat(parts)

    def _forecaster(self, problem: str, model: str, members: int | None) -> Forecaster | None:
        """None of test-time conditioning, which is made of others' members.

        Raises:
            ConfigurationError: there is none of this name, or it has no members.
        """
        surrogate = self.surrogate
        if members is not None:
            if isinstance(members, bool) or members < 1:
                raise ConfigurationError(f"{members!r} is no number of members", where="forecast: members")
            surrogate = replace(surrogate, members=members)
        known = self.models(problem)
        if model not in known:
            kept = model != CONDITIONED or self._trained.evaluation.conditioning is None
            raise ConfigurationError(
                f"there is no model {model!r}" + ("" if kept else f": {NOT_KEPT}"),
                where="forecast: model",
                fix=f"choose one of {', '.join(known)}",
            )
        found = {each.name: each for each in surrogate.forecasters(problem)}.get(model)
        if members is not None and (found is None or found.members != members):
            raise ConfigurationError(
                f"{model} has no ensemble",
                where="forecast: members",
                fix="choose another model, or give no members",
            )
        return found

    def _problem(self, problem: str | None) -> str:
        """
        Raises:
            ConfigurationError: there is none of this name, or several and no name.
        """
        if problem is None and len(self.usages) == 1:
            return next(iter(self.usages))
        if problem not in self.usages:
            raise ConfigurationError(
                "the surrogate is of several problems"
                if problem is None
                else f"there is no problem {problem!r}",
                where="problem",
                fix=f"choose one of {', '.join(self.usages)}",
            )
        return problem


def _first_frames(usage: Usage, fields: Array | Mapping[str, Array], *, on_grid: bool) -> NDArray[np.float32]:
    """First frames by name to [n, *grid, C] on the model's grid, or [n, P, C] at points; what is not given is 0.

    Raises:
        DataError: a field is missing or unknown, no array of numbers, has another shape than the others, or is on another grid.
    """
    names = [field.name for field in usage.given]
    if not isinstance(fields, Mapping):
        if len(names) > 1:
            raise DataError(
                f"one array does not say which of {', '.join(names)} is where",
                where="forecast: fields",
                fix=f"give them by name: {{{', '.join(f'{name!r}: ...' for name in names)}}}",
            )
        fields = {names[0]: fields}
    given = list(map(str, fields))
    if set(given) != set(names):
        raise DataError(
            f"got {', '.join(given) or 'nothing'}",
            where="forecast: fields",
            fix=f"give {', '.join(names)}, by name",
        )
    read: dict[str, NDArray[np.float32]] = {}
    for name in names:
        try:
            values = np.asarray(_numpy(fields[name]), dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise DataError(
                f"is no array of numbers: {error}",
                where=f"forecast: {name}",
                fix="give an array of NumPy or torch, or lists of equal length",
            ) from error
        if values.ndim == (len(usage.grid) if on_grid else 1):
            values = values[None]
        if on_grid:
            _check_coordinates(usage, name, fields[name])
            values = _on_grid(usage, name, values)
        elif values.ndim != 2 or not values.size:
            raise DataError(
                f"has shape {values.shape}",
                where=f"forecast: {name}",
                fix="give [n, P], values at the points of at",
            )
        read[name] = values
    shapes = {name: values.shape for name, values in read.items()}
    if len(set(shapes.values())) > 1:
        raise DataError(f"have different shapes: {shapes}", where="forecast: fields")
    frames = np.zeros((*next(iter(shapes.values())), len(usage.fields)), dtype=np.float32)
    for channel, field in enumerate(usage.fields):
        if field.name in read:
            frames[..., channel] = read[field.name]
    return frames


def _on_grid(usage: Usage, name: str, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Values [n, *grid], thinned to the model's grid as the training's were.

    Raises:
        DataError: the model's grid is not among the points.
    """
    grid, wanted = values.shape[1:], usage.grid
    stride = grid[0] // wanted[0] if len(grid) == len(wanted) else 0
    if not len(values) or stride < 1 or tuple(stride * points for points in wanted) != grid:
        raise DataError(
            f"has shape {values.shape}",
            where=f"forecast: {name}",
            fix=f"give [n, {', '.join(map(str, wanted))}], or a multiple of these points",
        )
    return strided(torch.from_numpy(values[..., None]), stride, len(wanted))[..., 0].numpy()


def _check_coordinates(usage: Usage, name: str, given: Array) -> None:
    """Of what brings its coordinates, as xarray does.

    Raises:
        DataError: they are not those of the model's grid.
    """
    dims = getattr(given, "dims", ())
    own = getattr(given, "coords", {})
    for axis, points in zip(usage.problem.axes, usage.coordinates, strict=True):
        if axis in dims and dims.index(axis) != len(dims) - len(
            usage.problem.axes
        ) + usage.problem.axes.index(axis):
            raise DataError(
                f"has the axes {', '.join(dims)}",
                where=f"forecast: {name}",
                fix=f"{', '.join(usage.problem.axes)} come last",
            )
        if axis in dims and axis in own:
            values = np.asarray(own[axis], dtype=np.float64)
            thinned = values[:: max(1, len(values) // len(points))]
            if len(points) > 1 and not np.allclose(
                thinned, points, rtol=0, atol=1e-3 * (points[1] - points[0])
            ):
                raise DataError(
                    f"{axis} goes from {thinned[0]:.6g} to {thinned[-1]:.6g}",
                    where=f"forecast: {name}",
                    fix=f"give it on the model's points, {points[0]:.6g} to {points[-1]:.6g}",
                )


def _numpy(values: Array) -> Array:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else values


def _is_torch(fields: Array | Mapping[str, Array]) -> bool:
    values = fields.values() if isinstance(fields, Mapping) else [fields]
    return any(isinstance(value, Tensor) for value in values)
