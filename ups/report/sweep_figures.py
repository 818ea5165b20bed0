"""Figures of a sweep: which values lead to which error, and how the errors came down."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ups.report.drawing import FAINT, GRID, INK, WIDTH, label_ends, plain_log, styled

Rows = Sequence[Mapping[str, Any]]
"""Of `ups.pipeline.sweeps.sweep.SweepRun.ranking`, the best first."""

_MOST_LABELS = 6
_MOST_TICKS = 12
_COLOURS: Colormap = mpl.colormaps["viridis"]


def _colour(place: int, of: int) -> Any:
    """Dark is best; the lightest yellow is left out, which paper does not show."""
    return _COLOURS(0.88 * place / max(1, of - 1))


def complete(row: Mapping[str, Any]) -> bool:
    """Whether a configuration was trained to its end, and its error counts."""
    return row["state"] in {"trained", "finished"} and row["error"] is not None


@styled
def parallel_coordinates(rows: Rows, keys: Sequence[str]) -> Figure:
    """An axis for each key that varies and one for the error; a line for each configuration."""
    shown = [row for row in rows if row["error"] is not None]
    axes_of = [_axis([row["varied"][key] for row in shown]) for key in keys]
    errors = _axis([str(row["error"]) for row in shown])
    figure = Figure(figsize=(WIDTH, 4.4), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(keys) + 1)
    done = sum(complete(row) for row in shown)
    for index, row in reversed(list(enumerate(shown))):
        heights = [heights[index] for heights, _ in (*axes_of, errors)]
        whole = complete(row)
        axes.plot(
            places,
            heights,
            color=_colour(index, done) if whole else FAINT,
            linewidth=3.0 if index == 0 and whole else 1.6 if whole else 1.0,
            linestyle="-" if whole else (0, (3, 2)),
            alpha=1.0 if whole else 0.7,
            zorder=3 if whole else 2,
        )
    for place, (_, ticks) in zip(places, (*axes_of, errors), strict=True):
        axes.axvline(float(place), color=INK, linewidth=0.9, zorder=4)
        left = place < len(keys)
        for height, text in ticks:
            axes.text(
                place + (-0.02 if left else 0.02),
                height,
                text,
                ha="right" if left else "left",
                va="center",
                fontsize=9,
                zorder=5,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.2, "alpha": 0.85},
            )
    axes.set_xticks(places, [*(_broken(key) for key in keys), "validation\nerror"])
    axes.tick_params(axis="x", length=0)
    axes.set_yticks([])
    axes.set_xlim(-0.35, len(keys) + 0.25)
    axes.set_ylim(-0.06, 1.06)
    axes.grid(visible=False)
    axes.spines[["left", "bottom"]].set_visible(False)
    return figure


def _axis(values: Sequence[str]) -> tuple[list[float], list[tuple[float, str]]]:
    """Heights from 0 to 1 of values, and ticks; numbers by their logarithm where they are positive, words evenly spaced."""
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        names = list(dict.fromkeys(values))
        heights = {name: (at + 0.5) / len(names) for at, name in enumerate(names)}
        return [heights[value] for value in values], [(height, name) for name, height in heights.items()]
    low, high = min(numbers), max(numbers)
    scale = math.log if low > 0 and high / low > 3 else float
    bottom, top = scale(low), scale(high)

    def height(value: float) -> float:
        return 0.5 if top == bottom else (scale(value) - bottom) / (top - bottom)

    different = sorted(set(numbers))
    if len(different) > _MOST_TICKS:
        different = [different[round(at)] for at in np.linspace(0, len(different) - 1, 5)]
    ticks: list[tuple[float, str]] = []
    for value in different:
        if not ticks or height(value) - ticks[-1][0] > 0.05:
            ticks.append((height(value), f"{value:.4g}"))
    return [height(value) for value in numbers], ticks


def _broken(key: str) -> str:
    """A dotted key in two lines."""
    section, _, last = key.rpartition(".")
    return f"{last}\n{section}" if section else last


@styled
def learning_curves(rows: Rows) -> Figure:
    """Validation error over steps: the complete ones in colour, those that were ended early in grey to where they ended."""
    figure = Figure(figsize=(WIDTH, 4.8), layout="constrained")
    axes = figure.subplots()
    done = sum(complete(row) for row in rows)
    ends: list[tuple[str, Any, float]] = []
    for index, row in reversed(list(enumerate(rows))):
        whole = complete(row)
        colour = _colour(index, done) if whole else FAINT
        for curve in row["curves"]:
            steps = [step for step, _ in curve]
            errors = [math.nan if error is None else error for _, error in curve]
            axes.plot(
                steps,
                errors,
                color=colour,
                linewidth=2.6 if index == 0 and whole else 1.4,
                alpha=1.0 if whole else 0.8,
                marker="o",
                markersize=3 if whole else 2.2,
                zorder=3 if whole else 2,
            )
            if not whole and steps:
                axes.plot(steps[-1:], errors[-1:], color=colour, marker="x", markersize=6, zorder=2)
        if whole and index < _MOST_LABELS and row["curves"][0]:
            ends.append((row["name"], colour, row["curves"][0][-1][1]))
    axes.set_xlabel("step")
    axes.set_ylabel("validation relative L2")
    axes.margins(x=0.01)
    finite = [error for row in rows for curve in row["curves"] for _, error in curve if error]
    if finite:
        axes.set_yscale("log")
        plain_log(axes.yaxis)
    if ends:
        label_ends(
            axes, [(label, colour, math.nan if end is None else end) for label, colour, end in reversed(ends)]
        )
    if any(not complete(row) for row in rows):
        axes.add_artist(
            axes.legend(
                handles=[
                    Line2D([], [], color=FAINT, marker="x", linewidth=1.4, label="not trained to its end")
                ],
                loc="upper right",
                frameon=True,
                edgecolor=GRID,
                fontsize=9,
            )
        )
    return figure
