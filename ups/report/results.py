"""The result table: what each metric means, and its values side by side."""

import math
from dataclasses import dataclass
from typing import Literal

from ups.report.catalogue import model_named
from ups.report.source import ProblemResults, Record
from ups.report.writing import SPACE, duration, number, percent

HEADLINE = "trajectory_relative_l2"
COVERAGE = "coverage_90"
OVER_OPERATOR, OVER_DRESSED = "error_over_operator", "crps_over_dressed"
NOMINAL = 0.90


@dataclass(frozen=True)
class Metric:
    """One metric of the table.

    Attributes:
        kind: how values are written.
        optional: models may be without it: what they are compared with, or, of ensembles' metrics, single forecasts.
        target: the best value there is; the nearest to it is shown as best.
    """

    name: str
    group: str
    label: str
    definition: str
    kind: Literal["number", "percent", "seconds"] = "number"
    optional: Literal["ensembles", "some"] | None = None
    target: float | None = 0.0


METRICS = (
    Metric(
        HEADLINE,
        "Accuracy",
        "Trajectory relative L2",
        "‖prediction − truth‖ / ‖truth‖ over all scored frames and points of a trajectory, of each field by itself; "
        "the mean over fields, then over trajectories.",
    ),
    Metric(
        "trajectory_relative_l2_median",
        "Accuracy",
        "Trajectory relative L2, median",
        "The same, median over trajectories.",
    ),
    Metric(
        "pdebench_nrmse",
        "Accuracy",
        "PDEBench nRMSE",
        "Root mean square error of each frame over that frame’s own root mean square, then the mean over "
        "trajectories, frames and fields. Frames that have decayed weigh as much as energetic ones.",
    ),
    Metric(
        "final_relative_l2",
        "Accuracy",
        "Last frame, relative L2",
        "The relative L2 of the last frame alone: what is left of the error at the end of the rollout.",
    ),
    Metric(
        "mass_drift",
        "Physics",
        "Mass drift",
        "Largest change of the spatial mean over time, over the root mean square of the first frame, of the worst "
        "conserved field. The true solution keeps its mean where nothing flows in or out.",
    ),
    Metric(
        "spectral_rmse_low",
        "Spectrum",
        "Spectral RMSE, k = 0 to 3",
        "PDEBench’s fRMSE: root mean square error of the Fourier coefficients in a band of wavenumbers k, in "
        "units of the field; of two axes in radial bins.",
    ),
    Metric("spectral_rmse_mid", "Spectrum", "Spectral RMSE, k = 4 to 11", "The same, middle band."),
    Metric("spectral_rmse_high", "Spectrum", "Spectral RMSE, k = 12 and up", "The same, high band: fronts."),
    Metric(
        "crps",
        "Uncertainty",
        "CRPS",
        "Continuous ranked probability score, fair in the number of members, in units of the field: the absolute "
        "error of a forecast that is a distribution; of a single forecast, its mean absolute error.",
    ),
    Metric(
        "spread_skill",
        "Uncertainty",
        "Spread over skill",
        "Root mean square deviation of the members from their mean, with the finite ensemble’s factor, over the root "
        "mean square error of that mean; both relative to the truth’s norm. Best is 1. Ensembles only.",
        optional="ensembles",
        target=1.0,
    ),
    Metric(
        COVERAGE,
        "Uncertainty",
        "Coverage of the 90 % interval",
        "Part of the truth inside the central 90 % of the ensemble, by ranks. Best is 90 %, no more and no less. "
        "Ensembles only.",
        kind="percent",
        optional="ensembles",
        target=NOMINAL,
    ),
    Metric(
        OVER_OPERATOR,
        "Compared",
        "Error over the operator’s",
        "Ratio of the mean trajectory relative L2 to the operator’s on the same trajectories; in brackets the 95 % interval "
        "of a paired bootstrap over trajectories. Better or worse is what lies on one side of 1 with its whole interval.",
        optional="some",
        target=None,
    ),
    Metric(
        OVER_DRESSED,
        "Compared",
        "CRPS over the dressed operator’s",
        "The same of the CRPS, to that of the operator with past errors: what learning the errors is worth.",
        optional="some",
        target=None,
    ),
    Metric(
        "seconds_per_trajectory",
        "Cost",
        "Time per trajectory",
        "Wall clock of the forecast: encoding, all steps of all members, decoding; with as many states at a time "
        "as the table says.",
        kind="seconds",
    ),
)
_FURTHER = "Further metrics"


@dataclass(frozen=True)
class Cell:
    """One value; `exact` has all digits, `error` is its standard error or empty."""

    text: str
    error: str = ""
    exact: str = ""
    best: bool = False


@dataclass(frozen=True)
class Row:
    """One metric of all models, in the order of `ProblemResults.models`."""

    label: str
    definition: str
    cells: list[Cell]


def result_table(results: ProblemResults) -> dict[str, list[Row]]:
    """Rows by group. Metrics that are not known here come last, under their own names.

    A metric that no model has is no metric of the problem (a map has no last frame). The best values of models
    that are not trivial are marked, all of them where they are equal.

    Raises:
        IntegrityError: a model lacks a metric that it must have.
    """
    measured = dict.fromkeys((metric, field) for _, metric, field in results.records)
    further = dict.fromkeys(metric for metric, _ in measured if metric not in {m.name for m in METRICS})
    unknown = [Metric(name, _FURTHER, name.replace("_", " "), "", target=None) for name in sorted(further)]
    groups: dict[str, list[Row]] = {}
    for metric in (*METRICS, *unknown):
        for field in (None, *results.fields):
            if (metric.name, field) in measured:
                groups.setdefault(metric.group, []).append(_row(results, metric, field))
    return groups


def measured_metrics(results: ProblemResults) -> list[Metric]:
    """The metrics that a problem has."""
    names = {metric for _, metric, _ in results.records}
    return [metric for metric in METRICS if metric.name in names]


def write_value(value: float | None, kind: Literal["number", "percent", "seconds"]) -> str:
    """A value as the table shows it."""
    return {"number": number, "percent": percent, "seconds": duration}[kind](value)


def _row(results: ProblemResults, metric: Metric, field: str | None) -> Row:
    records = [_record(results, model, metric, field) for model in results.models]
    distances = [
        math.inf
        if record is None or record["value"] is None or metric.target is None or model_named(model).trivial
        else abs(record["value"] - metric.target)
        for model, record in zip(results.models, records, strict=True)
    ]
    least = min(distances)
    cells = [
        _cell(record, metric, best=distance == least < math.inf)
        for record, distance in zip(records, distances, strict=True)
    ]
    label = metric.label if field is None else f"{metric.label}: {field}"
    return Row(label, metric.definition, cells)


def _record(results: ProblemResults, model: str, metric: Metric, field: str | None) -> Record | None:
    """None where the model has no such number, and should not."""
    single = metric.optional == "ensembles" and results.of_model(model, "n_members") == 1
    optional = metric.group == _FURTHER or metric.optional == "some" or single
    if optional:
        return results.records.get((model, metric.name, field))
    return results.record(model, metric.name, field)


def _cell(record: Record | None, metric: Metric, *, best: bool) -> Cell:
    if record is None:
        return Cell("")
    value, error, interval = record["value"], record.get("standard_error"), record.get("interval")
    if interval is not None:
        shown = f"[{number(interval[0], 3)}, {number(interval[1], 3)}]"
    elif error is None:
        shown = ""
    elif metric.kind == "percent":
        shown = f"±{SPACE}{number(100 * error, 2)}{SPACE}%"
    else:
        shown = f"±{SPACE}{number(error, 2) if metric.kind == 'number' else duration(error)}"
    exact = "not finite" if value is None else f"{value:.9g}"
    return Cell(write_value(value, metric.kind), shown, exact, best)
