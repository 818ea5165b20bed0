"""Test-time conditioning: whether physics and truth agree about candidates, and what a choice by either gains."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from ups.report.catalogue import entry, model_named
from ups.report.drawing import FAINT, INK, WIDTH, Array, Curves, curve, label_ends, plain_log, styled
from ups.report.writing import number

_ROWS = ("ttc_random", "ttc", "ttc_observed", "ttc_oracle")


@styled
def conditioning(curves: Curves) -> Figure:
    """Score against true error of every candidate; the error of the rows over the operator's, by trajectory.

    Raises:
        IntegrityError: something is missing.
    """
    figure = Figure(figsize=(WIDTH, 4.6), layout="constrained")
    scatter, gains = figure.subplots(1, 2, width_ratios=(1, 1.15))
    _agreement(curves, scatter)
    _gains(curves, gains)
    return figure


def _agreement(curves: Curves, axes: Axes) -> None:
    scores, errors = (
        np.array(entry(curves, "conditioning", name, where="curves.json"), dtype=float)
        for name in ("scores", "errors")
    )
    member, operator = model_named("diffusion"), model_named("operator")
    axes.scatter(scores[:, 1:], errors[:, 1:], s=7, color=member.colour, alpha=0.3, linewidth=0)
    axes.scatter(scores[:, 0], errors[:, 0], s=20, color=operator.colour, edgecolor="white", linewidth=0.5)
    finite = np.isfinite(scores) & np.isfinite(errors) & (scores > 0) & (errors > 0)
    if finite.any():
        for axis, values in ((axes.xaxis, scores[finite]), (axes.yaxis, errors[finite])):
            low, high = values.min() / 1.2, values.max() * 1.2
            axis.axes.set(**{f"{axis.axis_name}scale": "log", f"{axis.axis_name}lim": (low, high)})
            plain_log(axis)
            if high > 30 * low:  # half a page has no room for 1, 2, 5 of several decades
                axis.set_major_locator(LogLocator())
    axes.set_xlabel("physics score of a candidate")
    axes.set_ylabel("true error, trajectory relative L2")
    axes.set_title("candidates")
    within = _within(scores, errors)
    lines = [("operator’s forecast", operator.colour), ("members", member.colour)]
    if within is not None:
        lines.append((f"rank correlation within\na trajectory: {number(within, 2)}", INK))
    for place, (text, colour) in enumerate(lines):
        axes.text(0.03, 0.97 - 0.07 * place, text, transform=axes.transAxes, color=colour, va="top")


def _within(scores: Array, errors: Array) -> float | None:
    """Spearman's correlation of score and error among the candidates of one trajectory, mean over trajectories."""
    found = []
    for score, error in zip(scores, errors, strict=True):
        finite = np.isfinite(score) & np.isfinite(error)
        if finite.sum() > 2:
            ranks = [values[finite].argsort().argsort() for values in (score, error)]
            found.append(np.corrcoef(*ranks)[0, 1])
    return float(np.mean(found)) if found else None


def _gains(curves: Curves, axes: Axes) -> None:
    operator = curve(curves, "operator", "trajectory")
    models = entry(curves, "models", where="curves.json")
    ends = [("operator", FAINT, 1.0)]
    axes.axhline(1, color=FAINT, linewidth=1)
    share = (np.arange(len(operator)) + 0.5) / len(operator)
    for name in (name for name in _ROWS if name in models):
        model = model_named(name)
        ratio = np.sort(curve(curves, name, "trajectory") / operator)
        axes.plot(share, ratio, color=model.colour, linestyle=model.dashes)
        ends.append((model.label, model.colour, ratio[-1]))
    axes.set_yscale("log")
    plain_log(axes.yaxis)
    axes.set_xlim(0, 1)
    axes.set_xlabel("part of the trajectories, each line in order of its own ratio")
    axes.set_title("error over the operator’s, by trajectory", color=INK)
    label_ends(axes, ends)
