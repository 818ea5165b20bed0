"""From forecasts to records: one dictionary per model, metric and, where there are several, field.

Fields of one problem have different units, and numbers of different units are never added. What is relative
(trajectory relative L2, nRMSE, mass drift, coverage, spread over skill) is averaged over the scored fields, each by
itself first; where there are several, the trajectory relative L2 of each is a record of its own too. What has a unit
(spectral RMSE, CRPS) is a record per field and nothing else. Given fields are never scored.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ups.evaluation import metrics
from ups.losses.relative import relative_l2_per_field
from ups.problems import Boundary, Field

OPERATOR, DRESSED = "operator", "operator_dressed"
"""What others are compared with."""

Forecast = Callable[[Tensor], Tensor]
"""Physical first frames [n, *grid, C] to members [n, M, t, x, C]."""


@dataclass(frozen=True)
class Setting:
    """What is scored, and what every record of it repeats.

    Attributes:
        problem: its name in the configuration.
        dataset: what people call it.
        version: which data were scored.
        fields: of the state, in the order of the channels.
        boundary: of the domain.
        is_map: one application of the operator, from given fields to the others.
        seed: of the run (weights and batches); ensembles have their own, fixed by the configuration.
        resolution: of the grid that was scored on.
        frames: of a trajectory, the given first one included.
    """

    problem: str
    dataset: str
    version: str
    split: str
    fields: tuple[Field, ...]
    boundary: Boundary
    is_map: bool
    seed: int
    resolution: tuple[int, ...]
    frames: int
    device: str
    threads: int

    @property
    def scored(self) -> list[int]:
        """Channels that are not given."""
        return [channel for channel, declared in enumerate(self.fields) if not declared.given]

    @property
    def conserved(self) -> list[int]:
        """Channels whose mean the equation keeps: conserved fields of an evolution without walls."""
        if self.is_map or self.boundary != "periodic":
            return []
        return [channel for channel, declared in enumerate(self.fields) if declared.conserved]


@dataclass
class Scores:
    """Everything kept of one model's forecasts, per trajectory and scored field.

    Attributes:
        per_field: relative L2 over all frames, [n, C].
        trajectory: its mean over fields, [n].
        frame: relative L2 by frame, mean over fields, [n, t] (PDEBench's per-frame nRMSE).
        drift: of the mass, [n]; empty where nothing is conserved.
        spectral: squared spectral error [n, t, bins, C].
        spectrum: energy of the prediction at the last frame by wavenumber, [n, bins, C].
        variance, square_error: of the ensemble and of its mean, over the square norm of the truth, [n, C], for
            ensembles.
        coverage: [n, t], for ensembles.
        ranks: [M + 1], for ensembles.
        per_trajectory: of each metric of `metrics.PER_TRAJECTORY`, [n] or [n, C].
        equivariance: relative L2 between forecasts with and without a symmetry, by symmetry, where measured.
    """

    name: str
    members: int
    calls_per_step: int
    calls_per_member: int = 0
    seconds: float = 0.0
    batch: int = 0
    per_field: list[Tensor] = field(default_factory=list)
    trajectory: list[Tensor] = field(default_factory=list)
    frame: list[Tensor] = field(default_factory=list)
    drift: list[Tensor] = field(default_factory=list)
    spectral: list[Tensor] = field(default_factory=list)
    spectrum: list[Tensor] = field(default_factory=list)
    variance: list[Tensor] = field(default_factory=list)
    square_error: list[Tensor] = field(default_factory=list)
    coverage: list[Tensor] = field(default_factory=list)
    ranks: list[Tensor] = field(default_factory=list)
    per_trajectory: dict[str, list[Tensor]] = field(default_factory=dict)
    equivariance: dict[str, float] = field(default_factory=dict)

    def get(self, name: str) -> Tensor:
        """All trajectories of one kept quantity."""
        return torch.cat(self.per_trajectory[name] if name in self.per_trajectory else getattr(self, name))


def score(
    name: str,
    forecast: Forecast,
    truth: Tensor,
    setting: Setting,
    *,
    members: int,
    calls_per_step: int,
    batch: int,
    calls_per_member: int = 0,
) -> Scores:
    """Score a model on trajectories [n, 1 + t, *grid, C], `batch` of them at a time.

    Point metrics score the ensemble mean. Time counts the forecast only: encoding, steps and decoding.
    """
    scores = Scores(name, members, calls_per_step, calls_per_member, batch=batch * members)
    grid = tuple(truth.shape[2:-1])
    scored, conserved = setting.scored, setting.conserved
    for part in truth.split(batch):
        started = time.perf_counter()
        ensemble = forecast(part[:, 0])
        if ensemble.is_cuda:
            torch.cuda.synchronize()
        scores.seconds += time.perf_counter() - started
        if conserved:
            drift = metrics.mass_drift(
                ensemble[..., conserved].mean(dim=1), part[:, 0].flatten(1, -2)[..., conserved]
            )
            scores.drift.append(drift.cpu())
        ensemble = ensemble[..., scored]
        target = part[:, 1:].flatten(2, -2)[..., scored]
        prediction = ensemble.mean(dim=1)
        per_field = relative_l2_per_field(prediction, target).cpu()
        scores.per_field.append(per_field)
        scores.trajectory.append(per_field.mean(dim=-1))
        scores.frame.append(metrics.pdebench_nrmse(prediction, target).mean(dim=-1).cpu())
        scores.spectral.append(metrics.power(prediction - target, grid).cpu())
        scores.spectrum.append(metrics.power(ensemble[:, 0, -1:], grid)[:, 0].cpu())
        for metric, (formula, _) in metrics.PER_TRAJECTORY.items():
            scores.per_trajectory.setdefault(metric, []).append(formula(ensemble, target).cpu())
        if members > 1:
            norm = target.square().mean(dim=(1, 2))
            scores.variance.append((ensemble.var(dim=1).mean(dim=(1, 2)) / norm).cpu())
            scores.square_error.append(((prediction - target).square().mean(dim=(1, 2)) / norm).cpu())
            scores.coverage.append(metrics.coverage(ensemble, target, 0.9).cpu())
            scores.ranks.append(metrics.rank_counts(ensemble, target)[None].cpu())
    return scores


@dataclass(frozen=True)
class _Number:
    """One value of a table; `field` where it is of one field of several, `low` and `high` its 95 % interval."""

    metric: str
    value: float
    unit: str = "1"
    error: float = math.nan
    field: str | None = None
    low: float = math.nan
    high: float = math.nan


def records(scores: Scores, setting: Setting) -> list[dict[str, Any]]:
    """Records {problem, model, dataset, split, metric, field, value, unit, ...} of one model.

    `value` is null where not finite, `field` where it is of all scored fields together, `interval` but of ratios.
    """
    return _records(scores, setting, [*_over_fields(scores, setting), *_by_field(scores, setting)])


def result_records(results: Sequence[Scores], setting: Setting) -> list[dict[str, Any]]:
    """All records of a problem's table."""
    each = [record for scores in results for record in records(scores, setting)]
    return each + comparisons(results, setting)


def comparisons(results: Sequence[Scores], setting: Setting) -> list[dict[str, Any]]:
    """Records of ratios, paired by trajectory: of every model's error to the operator's, and of every ensemble's CRPS
    to that of the operator dressed in past errors.

    results: of one problem.
    """
    named = {result.name: result for result in results}
    operator, dressed = named[OPERATOR], named[DRESSED]
    table = []
    for result in results:
        if result is operator:
            continue
        errors = metrics.paired_ratio(result.get("trajectory"), operator.get("trajectory"))
        numbers = [_ratio("error_over_operator", errors)]
        if result.members > 1 and result is not dressed:
            for place, channel in enumerate(setting.scored):
                scores = (model.get("crps")[:, place] for model in (result, dressed))
                field = setting.fields[channel].name if len(setting.scored) > 1 else None
                numbers.append(_ratio("crps_over_dressed", metrics.paired_ratio(*scores), field))
        table += _records(result, setting, numbers)
    return table


def _ratio(metric: str, ratio: tuple[float, float, float], field: str | None = None) -> _Number:
    value, low, high = ratio
    return _Number(metric, value, field=field, low=low, high=high)


def _records(scores: Scores, setting: Setting, numbers: Sequence[_Number]) -> list[dict[str, Any]]:
    names = [setting.fields[channel].name for channel in setting.scored]
    return [
        {
            "problem": setting.problem,
            "model": scores.name,
            "dataset": setting.dataset,
            "data_version": setting.version,
            "split": setting.split,
            "metric": number.metric,
            "field": number.field,
            "value": _finite(number.value),
            "standard_error": _finite(number.error),
            "interval": [number.low, number.high] if math.isfinite(number.low) else None,
            "unit": number.unit,
            "n_trajectories": len(scores.get("trajectory")),
            "frames": setting.frames,
            "frames_skipped": 1,
            "resolution": list(setting.resolution),
            "fields_scored": names,
            "seed": setting.seed,
            "n_members": scores.members,
            "calls_per_step": scores.calls_per_step,
            "calls_per_member": scores.calls_per_member,
            "device": setting.device,
            "threads": setting.threads,
            "batch": scores.batch,
        }
        for number in numbers
    ]


def _over_fields(scores: Scores, setting: Setting) -> list[_Number]:
    trajectory, frame = scores.get("trajectory"), scores.get("frame")
    numbers = [
        _mean("trajectory_relative_l2", trajectory),
        _Number("trajectory_relative_l2_median", trajectory.quantile(0.5).item()),
        _mean("pdebench_nrmse", frame.mean(dim=1)),
    ]
    if not setting.is_map:
        numbers.append(_mean("final_relative_l2", frame[:, -1]))
    if scores.drift:
        numbers.append(_mean("mass_drift", scores.get("drift")))
    if scores.members > 1:
        ratio = metrics.spread_skill(scores.get("variance"), scores.get("square_error"), scores.members)
        numbers.append(_Number("spread_skill", ratio))
        numbers.append(_mean("coverage_90", scores.get("coverage").mean(dim=1)))
    each = {metric: scores.get(metric) for metric in metrics.PER_TRAJECTORY}
    numbers += [_mean(metric, values) for metric, values in each.items() if values.ndim == 1]
    numbers += [_Number(f"equivariance_{name}", value) for name, value in scores.equivariance.items()]
    seconds = scores.seconds / len(trajectory)
    return [*numbers, _Number("seconds_per_trajectory", seconds, "s")]


def _by_field(scores: Scores, setting: Setting) -> list[_Number]:
    """What has a unit; and, of several fields, the error of each."""
    points = math.prod(setting.resolution)
    numbers = []
    for place, channel in enumerate(setting.scored):
        declared = setting.fields[channel]
        name = declared.name if len(setting.scored) > 1 else None
        if name is not None:
            errors = scores.get("per_field")[:, place]
            numbers.append(_mean("trajectory_relative_l2", errors, field=name))
        bands = metrics.spectral_rmse(scores.get("spectral")[..., place : place + 1], points)
        numbers += [
            _Number(f"spectral_rmse_{band}", value, declared.unit, field=name)
            for band, value in bands.items()
        ]
        for metric, (_, relative) in metrics.PER_TRAJECTORY.items():
            values = scores.get(metric)
            if values.ndim == 2:
                unit = "1" if relative else declared.unit
                numbers.append(_mean(metric, values[:, place], unit=unit, field=name))
    return numbers


def _mean(metric: str, values: Tensor, *, unit: str = "1", field: str | None = None) -> _Number:
    """The mean over trajectories [n] and its standard error."""
    return _Number(metric, values.mean().item(), unit, metrics.standard_error(values), field)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
