"""How every figure of the report is drawn: style, bytes, and what their axes have in common.

Equal data give equal bytes. No pyplot: nothing global is opened, so nothing needs closing.
"""

import io
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator
from numpy.typing import NDArray

from ups.report.catalogue import entry

Array = NDArray[np.floating]
Curves = Mapping[str, Any]
"""What an evaluation's curves.json holds of one problem."""

INK, FAINT, GRID = "#2b2f36", "#8b919b", "#e7e9ec"
WIDTH = 10.4  # inches; the page shows them at about 96 points per inch
_PIXELS_PER_INCH = 192  # twice what the page shows
STYLE: Any = {
    # A user's matplotlibrc must not change what is sealed.
    **{name: value for name, value in mpl.rcParamsDefault.items() if name != "backend"},
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.titlepad": 7,
    "axes.titlecolor": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.linewidth": 1.8,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "ups",  # else the identifiers in the file are random
}
styled = mpl.rc_context(STYLE)
"""Draw in our style, whatever a user's is; for functions."""


@styled
def render(figure: Figure, kind: str) -> bytes:
    """The bytes of a figure as `svg` or `png`, without a date."""
    buffer = io.BytesIO()
    if kind == "svg":
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": None})
    else:
        figure.set_dpi(_PIXELS_PER_INCH)
        FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


def curve(curves: Curves, model: str, name: str) -> Array:
    """Something of one model; NaN where it was not finite.

    Raises:
        IntegrityError: it is missing.
    """
    return np.asarray(entry(curves, "models", model, name, where="curves.json"), dtype=float)


def times(curves: Curves) -> Array:
    """Times [t] of the scored frames.

    Raises:
        IntegrityError: they are missing.
    """
    return np.asarray(entry(curves, "times", where="curves.json"), dtype=float)[1:]


def positions(curves: Curves) -> list[Array]:
    """Coordinates [points] of each space axis.

    Raises:
        IntegrityError: they are missing.
    """
    return [np.asarray(axis, dtype=float) for axis in entry(curves, "coordinates", where="curves.json")]


def scored_fields(curves: Curves) -> list[tuple[int, str]]:
    """Channel and name of every field that is scored.

    Raises:
        IntegrityError: fields are missing.
    """
    fields = enumerate(entry(curves, "fields", where="curves.json"))
    return [(channel, field["name"]) for channel, field in fields if not field["given"]]


def plain_log(axis: Axis) -> None:
    """Ticks of a logarithmic axis: 0.02, 0.05, 0.1 over few decades, powers of ten over many."""
    low, high = axis.get_view_interval()
    decades = np.log10(high / low)
    if decades < 3:
        subdivisions = (1.0, 2.0, 5.0) if decades > 1 else (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)
        axis.set_major_locator(LogLocator(subs=subdivisions))
    if low > 1e-5 and high < 1e5:
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
    axis.set_minor_locator(NullLocator())


def label_ends(axes: Axes, ends: Sequence[tuple[str, str, float]], *, rows: int = 1) -> None:
    """Write each line's label right of its end, moved apart where they would overlap.

    Limits and scale of the axes must be final. ends: label, colour and last value of each line. rows: of panels
    in the figure.
    """
    transform = axes.transScale + axes.transLimits
    heights = transform.transform([(axes.get_xlim()[1], end) for _, _, end in ends])[:, 1]
    # A line that ends before the axis does, for it was not finite any more, went out at the top.
    at = np.clip(np.nan_to_num(heights, nan=1.0), 0.0, 1.0).tolist()
    place = apart(axes, at, rows=rows)
    for index, (label, colour, _) in enumerate(ends):
        leader = Line2D(
            [1.004, 1.022, 1.034],
            [at[index], place[index], place[index]],
            transform=axes.transAxes,
            color=colour,
            linewidth=1.2,
            clip_on=False,
        )
        leader.set_in_layout(False)
        axes.add_artist(leader)
        axes.text(1.04, place[index], label, transform=axes.transAxes, va="center", fontsize=9)


def apart(axes: Axes, at: Sequence[float], *, rows: int) -> list[float]:
    """Heights of labels beside the axes, as near to `at` as they can be without overlapping, in parts of the axes' height.

    Of equal heights the first one is lowest. rows: of panels in the figure.
    """
    figure = axes.get_figure(root=False)
    assert figure is not None
    inches = figure.bbox.height / figure.get_dpi() / rows - 0.9  # what title and labels of the x axis leave
    gap = min(0.19 / inches, 1.0 / len(at))
    order = sorted(range(len(at)), key=lambda index: at[index])
    place = list(at)
    for below, above in pairwise(order):
        place[above] = max(place[above], place[below] + gap)
    excess = place[order[-1]] - 1.0
    if excess > 0:
        place[order[-1]] = 1.0
        for above, below in zip(order[::-1], order[-2::-1], strict=False):
            place[below] = min(place[below], place[above] - gap)
    return place
