"""The verdict: a few sentences that follow from the numbers, also when they are bad."""

import math
import statistics
from dataclasses import dataclass
from typing import Literal

from ups.errors import IntegrityError
from ups.report.catalogue import model_named
from ups.report.results import COVERAGE, HEADLINE, NOMINAL
from ups.report.source import ProblemResults
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
    """The operator against the trivial forecasts, then every ensemble against the operator and the truth.

    Raises:
        IntegrityError: a number that the verdict needs is missing.
    """
    return [_operator(results), *(_ensemble(results, model) for model in results.ensembles)]


def calibration_of(coverage: float) -> str:
    """`calibrated`, `overconfident` (the interval is too narrow) or `underconfident`."""
    if not math.isfinite(coverage):
        return "not calibrated"
    if abs(coverage - NOMINAL) <= TOLERANCE:
        return "calibrated"
    return "overconfident" if coverage < NOMINAL else "underconfident"


def relative_change(results: ProblemResults, model: str) -> tuple[float, float]:
    """Mean error of a model over the operator's, less one, and its standard error, paired by trajectory.

    Raises:
        IntegrityError: the errors per trajectory are missing or not of the same trajectories.
    """
    reference = results.curve("models", "operator", "trajectory")
    errors = results.curve("models", model, "trajectory")
    if len(errors) != len(reference):
        raise IntegrityError(
            f"has {len(errors)} trajectories of {model!r} and {len(reference)} of the operator",
            where=str(results.curves_file),
        )
    change = results.value(model, HEADLINE) / results.value("operator", HEADLINE) - 1
    if None in errors or None in reference or len(errors) < 2:
        return change, math.nan
    differences = [error - of_operator for error, of_operator in zip(errors, reference, strict=True)]
    deviation = statistics.stdev(differences)
    return change, deviation / math.sqrt(len(differences)) / statistics.fmean(reference)


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


def _ensemble(results: ProblemResults, model: str) -> Finding:
    change, standard_error = relative_change(results, model)
    coverage = results.value(model, COVERAGE)
    spread = f" ±{SPACE}{percent(standard_error)}" if math.isfinite(standard_error) else ""
    if not math.isfinite(change):
        accuracy, accurate = "its error is not finite", False
    elif abs(change) <= CLOSE:
        accuracy = f"within {number(100 * CLOSE, 1)}{SPACE}% of the operator ({percent(change, signed=True)}{spread})"
        accurate = True
    else:
        word = "better" if change < 0 else "worse"
        accuracy, accurate = f"{percent(abs(change))}{spread} {word} than the operator", change < 0
    calibration = calibration_of(coverage)
    calibrated = calibration == "calibrated"
    label = model_named(model).label
    text = (
        f"{label[0].upper()}{label[1:]}: {accuracy}; {calibration}, the 90{SPACE}% interval holds "
        f"{percent(coverage)} of the truth."
    )
    return Finding("good" if accurate and calibrated else "fair" if accurate or calibrated else "bad", text)


def _with_article(model: str) -> str:
    label = model_named(model).label
    return f"the {label}" if " " in label else label
