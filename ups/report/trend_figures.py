"""Trends of a benchmark over nights: a panel for each measurement."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from ups.report.drawing import FAINT, INK, WIDTH, styled

_ALARMING, _USUAL = "#d55e00", "#0072b2"  # of Okabe and Ito (2008), as all colours of the report
_WORSE = {"worse", "drifted"}
"""Verdicts that fail a night."""
_COLUMNS, _ROW_INCHES = 2, 2.15


@dataclass(frozen=True)
class Point:
    """A night's value of a measurement: the median of its repeats, and their range."""

    at: datetime
    value: float
    low: float
    high: float
    status: str


@dataclass(frozen=True)
class Trend:
    """All nights of one measurement, oldest first.

    Attributes:
        expected, band: what the last night was compared with; None where nights were too few.
    """

    name: str
    points: Sequence[Point]
    expected: float | None
    band: tuple[float, float] | None


@styled
def trends(shown: Sequence[Trend]) -> Figure:
    """A panel for each: nights to the right, values upwards."""
    columns = min(_COLUMNS, len(shown))
    rows = math.ceil(len(shown) / columns)
    figure = Figure(figsize=(WIDTH, 0.3 + _ROW_INCHES * rows), layout="constrained")
    panels = np.asarray(figure.subplots(rows, columns, squeeze=False)).ravel()
    for axes, trend in zip(panels, shown, strict=False):
        _panel(axes, trend)
    for axes in panels[len(shown) :]:
        axes.set_visible(False)
    return figure


def _panel(axes: Axes, trend: Trend) -> None:
    at = date2num([point.at for point in trend.points])
    if trend.band is not None:
        axes.axhspan(*trend.band, color=_USUAL, alpha=0.1, linewidth=0)
    if trend.expected is not None:
        axes.axhline(trend.expected, color=FAINT, linewidth=1.0, linestyle="--")
    axes.vlines(
        at,
        [p.low for p in trend.points],
        [p.high for p in trend.points],
        color=_USUAL,
        alpha=0.3,
        linewidth=1.5,
    )
    axes.plot(at, [point.value for point in trend.points], color=_USUAL, linewidth=1.2)
    for worse, colour, size in ((False, _USUAL, 14), (True, _ALARMING, 42)):
        chosen = [
            (x, p.value) for x, p in zip(at, trend.points, strict=True) if (p.status in _WORSE) == worse
        ]
        if chosen:
            axes.scatter(*zip(*chosen, strict=True), s=size, color=colour, zorder=3)
    last = trend.points[-1]
    axes.set_title(trend.name, color=_ALARMING if last.status in _WORSE else INK)
    locator = AutoDateLocator(minticks=2, maxticks=6)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    margin = max(0.5, 0.03 * (at[-1] - at[0]))
    axes.set_xlim(at[0] - margin, at[-1] + margin)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    axes.margins(y=0.15)
