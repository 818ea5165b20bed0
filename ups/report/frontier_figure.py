"""Error against seconds per trajectory: a panel for each batch size."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ups.model_labels import MODELS, Model
from ups.report.drawing import FAINT, GRID, INK, WIDTH, apart, plain_log, styled
from ups.report.writing import duration

_PANEL_INCHES = 4.9
_MARGIN = 1.5  # of the axes beyond the points, as a factor
_OTHERS = {
    "operator_single": Model("operator, not averaged", "#56b4e9"),
    "fno": Model("FNO", "#999933"),
    "unet": Model("U-Net", "#44aa99"),
    "dilated_resnet": Model("dilated ResNet", "#aa4499"),
}
_SOLVER_COLOURS = (INK, "#7a6a53")
_UNKNOWN_COLOUR = "#555555"


def shown(name: str) -> Model:
    """How a row is called and coloured; a row that has no label yet has its name."""
    return MODELS.get(name) or _OTHERS.get(name) or Model(name.replace("_", " "), _UNKNOWN_COLOUR)


@styled
def frontier(record: Mapping[str, Any]) -> Figure:
    """Seconds to the right, error upwards, both logarithmic; solvers are lines over their grids, other rows points, and what
    nothing beats in both is the Pareto front."""
    batches = record["batches"]
    figure = Figure(figsize=(WIDTH, _PANEL_INCHES * len(batches)), layout="constrained")
    panels = figure.subplots(len(batches), 1, squeeze=False)[:, 0]
    for axes, batch in zip(panels, batches, strict=True):
        _panel(axes, record, str(batch), panels=len(batches))
    return figure


def _panel(axes: Axes, record: Mapping[str, Any], batch: str, *, panels: int) -> None:
    rows = [row for row in record["rows"] if row["error"]]
    points = [(row, row["seconds"][batch]["median"]) for row in rows if not row["own_grid"]]
    axes.set_xscale("log")
    axes.set_yscale("log")
    truths = [row["seconds"][batch]["median"] for row in record["rows"] if row["own_grid"]]  # one or none
    axes.set_xlim(_limits([seconds for _, seconds in points] + truths))
    axes.set_ylim(_limits([row["error"] for row, _ in points]))
    _front(axes, record["fronts"][batch])
    _solvers(axes, points)
    others = [(row, seconds) for row, seconds in points if row["kind"] != "solver"]
    for row, seconds in others:
        colour, taken = shown(row["model"]).colour, row["seconds"][batch]
        axes.plot([taken["low"], taken["high"]], [row["error"]] * 2, color=colour, linewidth=1.2)
        marker = "s" if row["kind"] == "peer" else "o"
        axes.plot(
            seconds, row["error"], marker, color=colour, markersize=7, markeredgecolor="white", zorder=4
        )
    for truth in truths:
        axes.axvline(truth, color=FAINT, linewidth=1.0, linestyle="--")
        axes.annotate(
            f"the truth’s own {record['truth_cells']} cells ", (truth, 0.99), xycoords=("data", "axes fraction"),
            rotation=90, ha="right", va="top", fontsize=8, color=FAINT,
        )  # fmt: skip
    plain_log(axes.xaxis)
    plain_log(axes.yaxis)
    axes.set_title(f"{batch} trajector{'y' if batch == '1' else 'ies'} at once")
    axes.set_xlabel("seconds per trajectory")
    axes.set_ylabel("trajectory relative L2")
    _labels(axes, others, panels)


def _labels(axes: Axes, points: Sequence[tuple[Mapping[str, Any], float]], panels: int) -> None:
    """Each point's label right of the axes, with a line to it. Of equal errors the slowest is lowest: so no lines cross."""
    ordered = sorted(points, key=lambda item: (item[0]["error"], -item[1]))
    transform = axes.transScale + axes.transLimits
    at = transform.transform([(seconds, row["error"]) for row, seconds in ordered])
    heights = apart(axes, at[:, 1].tolist(), rows=panels)
    for (row, seconds), (x, y), height in zip(ordered, at, heights, strict=True):
        model = shown(row["model"])
        line = Line2D([x, 1.02, 1.03], [y, height, height], transform=axes.transAxes, color=model.colour)
        line.set(linewidth=0.9, alpha=0.7, clip_on=False, in_layout=False)
        axes.add_artist(line)
        text = f"{model.label}, {duration(seconds)}"
        axes.text(1.035, height, text, transform=axes.transAxes, va="center", fontsize=9)


def _front(axes: Axes, front: Sequence[Sequence[float]]) -> None:
    """A staircase: with more seconds, the least error so far."""
    ordered = sorted((seconds, error) for error, seconds in front)
    axes.step(
        [ordered[0][0], *(seconds for seconds, _ in ordered), axes.get_xlim()[1]],
        [axes.get_ylim()[1], *(error for _, error in ordered), ordered[-1][1]],
        where="post", color=GRID, linewidth=7, zorder=1, solid_joinstyle="miter",
    )  # fmt: skip


def _solvers(axes: Axes, points: Sequence[tuple[Mapping[str, Any], float]]) -> None:
    names = dict.fromkeys(row["model"] for row, _ in points if row["kind"] == "solver")
    for name, colour in zip(names, _SOLVER_COLOURS, strict=False):
        own = [(row, seconds) for row, seconds in points if row["model"] == name]
        axes.plot(
            [seconds for _, seconds in own],
            [row["error"] for row, _ in own],
            "-D",
            color=colour,
            markersize=5,
            linewidth=1.4,
            zorder=3,
        )
        for place, (row, seconds) in enumerate(own):
            text = f"{name}, {row['cells']} cells" if place == 0 else str(row["cells"])
            axes.annotate(
                text,
                (seconds, row["error"]),
                xytext=(7, 5),
                textcoords="offset points",
                fontsize=8.5,
                color=colour,
            )


def _limits(values: Sequence[float]) -> tuple[float, float]:
    return min(values) / _MARGIN, max(values) * _MARGIN
