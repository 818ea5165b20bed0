"""The verdict: a few sentences that follow from the numbers, also when they are bad."""

import math
from dataclasses import dataclass
from typing import Literal

from ups.errors import IntegrityError
from ups.metric_labels import COVERAGE, HEADLINE, NOMINAL, OVER_DRESSED, OVER_OPERATOR
from ups.report.catalogue import model_named
from ups.report.run_directory import ProblemResults
from ups.report.writing import SPACE, number, percent

Status = Literal["good", "fair", "bad"]

CLOSE = 0.02
"""Relative difference of errors up to which two models count as equal."""
TOLERANCE = 0.05
"""Distance of the coverage from 90 % up to which an ensemble counts as calibrated."""


@dataclass(frozen=True)
class Finding:
    """One sentence, and whether it is good news."""

    status: Status
    text: str


def verdict(results: ProblemResults) -> list[Finding]:
    """The operator against the trivial forecasts, then against it what is conditioned, and every ensemble, also against the
    truth.

    Raises:
        IntegrityError: a number that the verdict needs is missing.
    """
    return [
        _operator(results),
        *(_conditioned(results, model) for model in results.models if model == "ttc"),
        *(_ensemble(results, model) for model in results.ensembles),
    ]


def calibration_of(coverage: float) -> str:
    """`calibrated`, `overconfident` (the interval is too narrow) or `underconfident`."""
    if not math.isfinite(coverage):
        return "not calibrated"
    if abs(coverage - NOMINAL) <= TOLERANCE:
        return "calibrated"
    return "overconfident" if coverage < NOMINAL else "underconfident"


def _operator(results: ProblemResults) -> Finding:
    error = results.value("operator", HEADLINE)
    if not math.isfinite(error):
        return Finding("bad", "The operator’s error is not finite: its forecasts blew up.")
    if not results.trivial:
        raise IntegrityError(f"has no trivial forecast of {results.name}", where=str(results.metrics_file))
    better, worse = [], []
    for name in results.trivial:
        label, ratio = _with_article(name), results.value(name, HEADLINE) / error
        if ratio > 1:
            better.append(f"{number(ratio)} times smaller than that of {label}")
        else:
            worse.append(f"{label} ({number(1 / ratio) if ratio else '∞'} times its error)")
    sentences = []
    if better:
        sentences.append(f"The operator’s error is {' and '.join(better)}.")
    if worse:
        sentences.append(f"The operator is worse than {' and '.join(worse)}.")
    return Finding("bad" if worse else "good", " ".join(sentences))


def _conditioned(results: ProblemResults, model: str) -> Finding:
    accuracy, accurate = _accuracy(results, model)
    label = model_named(model).label
    return Finding("good" if accurate else "bad", f"{label[0].upper()}{label[1:]}: {accuracy}.")


def _ensemble(results: ProblemResults, model: str) -> Finding:
    accuracy, accurate = _accuracy(results, model)
    coverage = results.value(model, COVERAGE)
    calibration = calibration_of(coverage)
    calibrated = calibration == "calibrated"
    label = model_named(model).label
    text = (
        f"{label[0].upper()}{label[1:]}: {accuracy}; {calibration}, the 90{SPACE}% interval holds "
        f"{percent(coverage)} of the truth.{_sharpness(results, model)}"
    )
    return Finding("good" if accurate and calibrated else "fair" if accurate or calibrated else "bad", text)


def _accuracy(results: ProblemResults, model: str) -> tuple[str, bool]:
    """Against the operator, in words; and whether it is at least as good."""
    change = results.value(model, OVER_OPERATOR) - 1
    low, high = _interval(results, model, OVER_OPERATOR)
    between = f"95{SPACE}% interval {percent(low - 1, signed=True)} to {percent(high - 1, signed=True)}"
    spread = f" ({between})" if math.isfinite(low) else ""
    if not math.isfinite(change):
        return "its error is not finite", False
    if abs(change) <= CLOSE:
        return f"within {number(100 * CLOSE, 1)}{SPACE}% of the operator{spread}", True
    if low <= 1 <= high:
        return (
            f"{percent(change, signed=True)} of the operator’s error, which shows no difference{spread}",
            True,
        )
    word = "better" if change < 0 else "worse"
    return f"{percent(abs(change))} {word} than the operator{spread}", change < 0


def _sharpness(results: ProblemResults, model: str) -> str:
    """Its CRPS against that of past errors; only for a single field, as several have no common number."""
    record = results.records.get((model, OVER_DRESSED, None))
    if record is None or record["value"] is None:
        return ""
    low, high = _interval(results, model, OVER_DRESSED)
    spread = f" ({number(low, 3)} to {number(high, 3)})" if math.isfinite(low) else ""
    return f" Its CRPS is {number(record['value'], 3)} of that of past errors{spread}."


def _interval(results: ProblemResults, model: str, metric: str) -> tuple[float, float]:
    low, high = results.record(model, metric, None).get("interval") or (math.nan, math.nan)
    return low, high


def _with_article(model: str) -> str:
    label = model_named(model).label
    return f"the {label}" if " " in label else label
