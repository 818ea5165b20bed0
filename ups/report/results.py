"""The result table: values of all metrics side by side."""

import math
from dataclasses import dataclass
from typing import Literal

from ups.metric_labels import METRICS, Metric
from ups.report.catalogue import model_named
from ups.report.run_directory import ProblemResults, Record
from ups.report.writing import SPACE, duration, number, percent

_FURTHER = "Further metrics"


@dataclass(frozen=True)
class Cell:
    """One value; `exact` has all digits and its ratio to the operator's, `error` is its standard error or empty."""

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

    Metrics that no model has are left out (a map has no last frame). The best values of models that are not
    trivial are marked, all of them where they are equal.

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
        if record is None or record["value"] is None or metric.target is None or not model_named(model).best
        else metric.distance(record["value"])
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
    if record.get("over_operator") is not None:
        ratio, low, high = (number(each, 3) for each in record["over_operator"])
        exact += f"; {ratio} times the operator’s, 95{SPACE}% interval {low} to {high}"
    return Cell(write_value(value, metric.kind), shown, exact, best)
