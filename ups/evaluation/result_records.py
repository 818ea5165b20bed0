"""From scores to records: one dictionary per model, metric and, where there are several, field.

Fields of one problem have different units, and numbers of different units are never added. What is relative
(trajectory relative L2, nRMSE, mass drift, coverage, spread over skill) is averaged over the scored fields, each by
itself first; where there are several, the trajectory relative L2 of each is a record of its own too. What has a unit
(RMSE and all others of PDEBench but nRMSE, CRPS) is a record per field and nothing else. Given fields are never scored.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ups.evaluation import metrics
from ups.evaluation.scores import Scores, Setting

HEADLINE = "trajectory_relative_l2"
OPERATOR, DRESSED = "operator", "operator_dressed"
"""What others are compared with."""
_DIGITS = 6  # of numbers by lead time, which are many


@dataclass(frozen=True, eq=False)
class _Number:
    """One value of a table.

    Attributes:
        field: where it is of one field of several.
        low, high: its 95 % interval.
        by_lead: the same number of each forecast frame, [t].
        trajectories: the numbers of which it is the mean, [n].
        frames_skipped: initial frames that do not count.
    """

    metric: str
    value: float
    unit: str = "1"
    error: float = math.nan
    field: str | None = None
    low: float = math.nan
    high: float = math.nan
    by_lead: Tensor | None = None
    trajectories: Tensor | None = None
    frames_skipped: int = 1


def score_records(scores: Scores, setting: Setting) -> list[dict[str, Any]]:
    """Records {problem, model, dataset, split, metric, field, value, unit, ...} of one model.

    `value` is null where not finite, `field` where it is of all scored fields together, `interval` but of ratios,
    `by_lead` where it has no lead time, `over_operator` everywhere: that needs the others' scores.
    """
    return _records(scores, setting, _numbers(scores, setting))


def result_records(results: Sequence[Scores], setting: Setting) -> list[dict[str, Any]]:
    """All records of a problem's table.

    `over_operator` of what is a mean over trajectories is its ratio to the operator's on the same ones and the ratio's 95 %
    interval, [ratio, low, high].
    """
    numbers = {result.name: _numbers(result, setting) for result in results}
    operator = {
        (number.metric, number.field): number.trajectories
        for number in numbers[OPERATOR]
        if number.trajectories is not None
    }
    table, compared, pairs = [], [], []
    for result in results:
        records = _records(result, setting, numbers[result.name])
        table += records
        for record, number in zip(records, numbers[result.name], strict=True):
            reference = operator.get((number.metric, number.field))
            if result.name != OPERATOR and number.trajectories is not None and reference is not None:
                compared.append(record)
                pairs.append((number.trajectories, reference))
    ratios = metrics.paired_ratios(*map(torch.stack, zip(*pairs, strict=True))) if pairs else []
    for record, ratio in zip(compared, ratios, strict=True):
        record["over_operator"] = list(ratio) if all(map(math.isfinite, ratio)) else None
    return table + comparisons(results, setting)


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
                scores = (model.get("crps").mean(dim=1)[:, place] for model in (result, dressed))
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
            "parameters": setting.parameters,
            "data_version": setting.version,
            "split": setting.split,
            "metric": number.metric,
            "field": number.field,
            "value": _finite(number.value),
            "standard_error": _finite(number.error),
            "interval": [number.low, number.high] if math.isfinite(number.low) else None,
            "over_operator": None,
            "by_lead": None if number.by_lead is None or setting.is_map else _rounded(number.by_lead),
            "unit": number.unit,
            "n_trajectories": len(scores.get("trajectory")),
            "frames": setting.frames,
            "frames_skipped": number.frames_skipped,
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


def _numbers(scores: Scores, setting: Setting) -> list[_Number]:
    return [
        *_over_fields(scores, setting),
        *_by_field(scores, setting),
        _Number("seconds_per_trajectory", scores.seconds / len(scores.get("trajectory")), "s"),
    ]


def _over_fields(scores: Scores, setting: Setting) -> list[_Number]:
    trajectory = scores.get("trajectory")
    numbers = [
        _mean(HEADLINE, trajectory),
        _Number(f"{HEADLINE}_median", trajectory.quantile(0.5).item()),
    ]
    for metric, kind in metrics.PER_TRAJECTORY.items():
        if kind.unit != "field" and metric in scores.per_trajectory:
            values = scores.get(metric)
            numbers.append(
                _per_trajectory(metric, values.mean(dim=-1) if values.ndim > 1 else values, setting)
            )
    if not setting.is_map:
        numbers.append(_mean("final_relative_l2", scores.get("pdebench_nrmse")[:, -1].mean(dim=-1)))
    if scores.drift:
        drift = scores.get("drift")
        numbers.append(replace(_mean("mass_drift", drift.amax(dim=1)), by_lead=drift.mean(dim=0)))
    if scores.members > 1:
        numbers += _of_ensemble(scores)
    return numbers + [_Number(f"equivariance_{name}", value) for name, value in scores.equivariance.items()]


def _of_ensemble(scores: Scores) -> list[_Number]:
    variance, error, members = scores.get("variance"), scores.get("square_error"), scores.members
    over_frames = variance.mean(dim=1), error.mean(dim=1), members
    ratio = metrics.spread_over_skill(variance, error, members)
    ranks = scores.get("ranks")
    by_frame, whole = ranks.sum(dim=0), ranks.sum(dim=(0, 1))
    calibration = [metrics.expected_calibration_error(frame) for frame in by_frame]
    numbers = [
        replace(_ratio("spread_skill", metrics.spread_skill(*over_frames)), by_lead=ratio),
        _Number("spread_skill_median", metrics.spread_skill_median(*over_frames)),
        _Number(
            "calibration_error", metrics.expected_calibration_error(whole), by_lead=torch.tensor(calibration)
        ),
    ]
    for level in metrics.LEVELS:
        inside = metrics.coverage(ranks, level)
        number = _mean(f"coverage_{100 * level:.0f}", inside.mean(dim=1))
        numbers.append(replace(number, by_lead=inside.mean(dim=0)))
    return numbers


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
        bands = metrics.spectral_rmse(scores.get("spectral")[..., place], points)
        numbers += [
            _Number(
                f"spectral_rmse_{band}",
                metrics.mean_over_frames(values, setting.initial_steps, dim=0).item(),
                declared.unit,
                field=name,
                by_lead=values,
                frames_skipped=setting.initial_steps,
            )
            for band, values in bands.items()
        ]
        for metric, kind in metrics.PER_TRAJECTORY.items():
            if kind.unit == "field" and metric in scores.per_trajectory:
                values = scores.get(metric)[..., place]
                numbers.append(_per_trajectory(metric, values, setting, unit=declared.unit, field=name))
    return numbers


def _per_trajectory(
    metric: str, values: Tensor, setting: Setting, *, unit: str | None = None, field: str | None = None
) -> _Number:
    """Of values [n] or [n, t]. unit: the field's, where the metric has it."""
    kind = metrics.PER_TRAJECTORY[metric]
    skipped = setting.initial_steps if kind.pdebench else 1
    by_lead = None
    if values.ndim == 2:
        by_lead = kind.over(values)
        values = metrics.mean_over_frames(values, skipped, dim=1)
    if kind.is_mean:
        number = _mean(metric, values, unit=unit or kind.unit, field=field)
    else:
        whole = kind.over(values) if by_lead is None else metrics.mean_over_frames(by_lead, skipped, dim=0)
        number = _Number(metric, whole.item(), unit or kind.unit, field=field)
    return replace(number, by_lead=by_lead, frames_skipped=skipped)


def _mean(metric: str, values: Tensor, *, unit: str = "1", field: str | None = None) -> _Number:
    """The mean over trajectories [n] and its standard error."""
    error = metrics.standard_error(values)
    return _Number(metric, values.mean().item(), unit, error, field, trajectories=values)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _rounded(values: Tensor) -> list[float | None]:
    return [_finite(float(f"{value:.{_DIGITS}g}")) for value in values.tolist()]
