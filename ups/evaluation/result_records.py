"""From scores to records: one dictionary per model, metric and, where there are several, field.

Fields of one problem have different units, and numbers of different units are never added. What is relative
(trajectory relative L2, nRMSE, mass drift, coverage, spread over skill) is averaged over the scored fields, each by
itself first; where there are several, the trajectory relative L2 of each is a record of its own too. What has a unit
(spectral RMSE, CRPS) is a record per field and nothing else. Given fields are never scored.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ups.evaluation import metrics
from ups.evaluation.scores import Scores, Setting

HEADLINE = "trajectory_relative_l2"
OPERATOR, DRESSED = "operator", "operator_dressed"
"""What others are compared with."""


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


def score_records(scores: Scores, setting: Setting) -> list[dict[str, Any]]:
    """Records {problem, model, dataset, split, metric, field, value, unit, ...} of one model.

    `value` is null where not finite, `field` where it is of all scored fields together, `interval` but of ratios.
    """
    return _records(scores, setting, [*_over_fields(scores, setting), *_by_field(scores, setting)])


def result_records(results: Sequence[Scores], setting: Setting) -> list[dict[str, Any]]:
    """All records of a problem's table."""
    each = [record for scores in results for record in score_records(scores, setting)]
    return each + comparisons(results, setting)


def comparisons(results: Sequence[Scores], setting: Setting) -> list[dict[str, Any]]:
    """Records of ratios, paired by trajectory: of every model's error to the operator's, and of every ensemble's CRPS
    to that of the operator dressed in past errors, where these were kept.

    results: of one problem.
    """
    named = {result.name: result for result in results}
    operator, dressed = named[OPERATOR], named.get(DRESSED)
    table = []
    for result in results:
        if result is operator:
            continue
        errors = metrics.paired_ratio(result.get("trajectory"), operator.get("trajectory"))
        numbers = [_ratio("error_over_operator", errors)]
        if dressed is not None and result.members > 1 and result is not dressed:
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
        _mean(HEADLINE, trajectory),
        _Number(f"{HEADLINE}_median", trajectory.quantile(0.5).item()),
        _mean("pdebench_nrmse", frame.mean(dim=1)),
    ]
    if not setting.is_map:
        numbers.append(_mean("final_relative_l2", frame[:, -1]))
    if scores.drift:
        numbers.append(_mean("mass_drift", scores.get("drift")))
    if scores.members > 1:
        squares = scores.get("variance"), scores.get("square_error"), scores.members
        numbers.append(_ratio("spread_skill", metrics.spread_skill(*squares)))
        numbers.append(_Number("spread_skill_median", metrics.spread_skill_median(*squares)))
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
            numbers.append(_mean(HEADLINE, errors, field=name))
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
