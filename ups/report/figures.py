"""Figures of an evaluation: pure functions from data to matplotlib figures, and of those to SVG or PNG.

Drawn when a run is evaluated and sealed with its numbers, so that a cached run never imports matplotlib.
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
from matplotlib.ticker import (
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    NullLocator,
    PercentFormatter,
)
from numpy.typing import NDArray

from ups.errors import IntegrityError
from ups.report import catalogue
from ups.report.catalogue import MODELS, TRUTH_COLOUR, entry, model_named

Array = NDArray[np.floating]
Records = Sequence[Mapping[str, Any]]

_INK, _FAINT, _GRID = "#2b2f36", "#8b919b", "#e7e9ec"
_WIDTH = 10.4  # inches; the page shows them at about 96 points per inch
_PIXELS_PER_INCH = 192  # twice what the page shows
_STYLE: Any = {
    # A user's matplotlibrc must not change what is sealed.
    **{name: value for name, value in mpl.rcParamsDefault.items() if name != "backend"},
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.titlepad": 7,
    "axes.titlecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "text.color": _INK,
    "xtick.color": _FAINT,
    "ytick.color": _FAINT,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "lines.linewidth": 1.8,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "ups",  # else the identifiers in the file are random
}
_EXTEND = {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}
_styled = mpl.rc_context(_STYLE)


@_styled
def draw_all(
    curves: Mapping[str, Any], examples: Mapping[str, Array], training: Mapping[str, Records]
) -> dict[str, bytes]:
    """Every figure of the report, by file name.

    Args:
        curves: the content of an evaluation's curves.json.
        examples: its example trajectories: `truth` [3, 1 + t, x, C]; [3, t, x, C] each: `operator`,
            `diffusion` (mean of the ensemble), `diffusion_deviation`, `diffusion_lower`, `diffusion_upper`.
        training: records per training stage.

    Raises:
        IntegrityError: something that a figure shows is missing.
    """
    figures: dict[str, Figure] = {}
    for channel, name in enumerate(entry(curves, "names", where="curves.json")):
        field = {key: value[..., channel] for key, value in examples.items()}
        figures[catalogue.space_time_file(name)] = space_time(curves, field, name)
        figures[catalogue.final_frame_file(name)] = final_frame(curves, field, name)
    figures[catalogue.ERROR_OVER_TIME] = error_over_time(curves)
    figures[catalogue.SPECTRUM] = spectrum(curves)
    figures[catalogue.CALIBRATION] = calibration(curves)
    figures[catalogue.TRAINING] = loss_curves(training)
    return {name: render(figure, name.rpartition(".")[2]) for name, figure in figures.items()}


@_styled
def render(figure: Figure, kind: str) -> bytes:
    """The bytes of a figure as `svg` or `png`, without a date."""
    buffer = io.BytesIO()
    if kind == "svg":
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": None})
    else:
        figure.set_dpi(_PIXELS_PER_INCH)
        FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


@_styled
def space_time(curves: Mapping[str, Any], examples: Mapping[str, Array], name: str) -> Figure:
    """Truth, operator, its error and the diffusion model's spread over space and time, three trajectories.

    One colour scale for truth and operator (the range of the truth), one for all errors, symmetric, and one
    for all spreads.
    """
    x, times = _axes_of(curves)
    chosen = _chosen(curves)
    truth = _example(examples, "truth")[:, 1:]
    operator, spread = _example(examples, "operator"), _example(examples, "diffusion_deviation")
    error = operator - truth
    members = entry(curves, "models", "diffusion", "members", where="curves.json")
    field_scale = {"cmap": "viridis", "vmin": truth.min(), "vmax": truth.max()}
    limit = symmetric_limit(error)
    error_scale = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit}
    spread_scale = {"cmap": "magma_r", "vmin": 0.0, "vmax": symmetric_limit(spread)}

    figure = Figure(figsize=(_WIDTH, 9.4), layout="constrained")
    panels = figure.subplots(3, 4, sharex=True, sharey=True)
    for row, (example, axes) in enumerate(zip(chosen, panels, strict=True)):
        columns = (
            (truth[row], f"{example['label']}: trajectory {example['trajectory']}", field_scale),
            (operator[row], f"operator, {_error(example)}", field_scale),
            (error[row], "operator − truth", error_scale),
            (spread[row], f"diffusion, spread ({members} members)", spread_scale),
        )
        for axis, (values, title, scale) in zip(axes, columns, strict=True):
            axis.pcolormesh(x, times, values, shading="nearest", rasterized=True, **scale)
            axis.set_title(title, fontsize=9.5)
            axis.grid(visible=False)
            axis.spines[["top", "right"]].set_visible(True)
        axes[0].set_ylabel("time t")
    for axis in panels[-1]:
        axis.set_xlabel("position x")
    beyond = (operator.min() < truth.min(), operator.max() > truth.max())
    for columns, label, extend in (
        ((0, 1), f"{name}: truth and operator", _EXTEND[beyond]),
        ((2,), f"error of {name}", "both"),
        ((3,), f"standard deviation of {name}", "max"),
    ):
        bar = figure.colorbar(
            panels[-1, columns[0]].collections[0],
            ax=[axis for column in columns for axis in panels[:, column]],
            location="bottom",
            aspect=18 * len(columns),
            pad=0.015,
            extend=extend,
            ticks=MaxNLocator(4 * len(columns)),
        )
        bar.set_label(label)
        bar.ax.spines[:].set_visible(False)
    return figure


@_styled
def final_frame(curves: Mapping[str, Any], examples: Mapping[str, Array], name: str) -> Figure:
    """The last frame of three trajectories: truth, operator, and the ensemble with its central 90 %."""
    x, times = _axes_of(curves)
    chosen = _chosen(curves)
    truth = _example(examples, "truth")
    figure = Figure(figsize=(_WIDTH, 3.9), layout="constrained")
    panels = figure.subplots(1, 3, sharex=True)
    diffusion, operator = MODELS["diffusion"], MODELS["operator"]
    for row, (example, axes) in enumerate(zip(chosen, panels, strict=True)):
        axes.fill_between(
            x,
            _example(examples, "diffusion_lower")[row, -1],
            _example(examples, "diffusion_upper")[row, -1],
            color=diffusion.colour,
            alpha=0.25,
            linewidth=0,
            label=f"{diffusion.label}, central 90 %",
        )
        axes.plot(x, truth[row, -1], color=TRUTH_COLOUR, linewidth=2.6, label="truth")
        for model in ("operator", "diffusion"):
            style = {"operator": operator, "diffusion": diffusion}[model]
            axes.plot(
                x,
                _example(examples, model)[row, -1],
                color=style.colour,
                linewidth=1.4,
                linestyle=(0, (4, 2)) if model == "diffusion" else "-",
                label=style.label if model == "operator" else f"{style.label}, mean",
            )
        axes.set_title(f"{example['label']}: trajectory {example['trajectory']}, {_error(example)}")
        axes.set_xlabel("position x")
        axes.margins(x=0)
    panels[0].set_ylabel(f"{name} at t = {times[-1]:.3g}")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False)
    return figure


@_styled
def error_over_time(curves: Mapping[str, Any]) -> Figure:
    """Relative L2 of each frame, mean over trajectories, and the operator's 10 to 90 % band."""
    _, times = _axes_of(curves)
    figure = Figure(figsize=(_WIDTH, 4.6), layout="constrained")
    axes = figure.subplots()
    operator = MODELS["operator"]
    low, high = (_curve(curves, "operator", f"error_{level}") for level in (10, 90))
    axes.fill_between(times, low, high, color=operator.colour, alpha=0.16, linewidth=0)
    at = len(times) // 2
    axes.text(
        times[at],
        np.sqrt(max(low[at], 1e-12) * max(_curve(curves, "operator", "error")[at], 1e-12)),
        "operator: 10 to 90 % of trajectories",
        color=operator.colour,
        fontsize=9,
        ha="center",
        va="center",
    )
    ends = []
    for name in entry(curves, "models", where="curves.json"):
        model, error = model_named(name), _curve(curves, name, "error")
        shown = np.where(error > 0, error, np.nan)
        axes.plot(times, shown, color=model.colour, linestyle=model.dashes)
        ends.append((model.label, model.colour, shown[-1]))
    axes.set_yscale("log")
    _plain_log(axes.yaxis)
    axes.set_xlim(times[0], times[-1])
    axes.set_xlabel("time t")
    axes.set_ylabel("relative L2 of the frame")
    _label_ends(axes, ends)
    return figure


@_styled
def spectrum(curves: Mapping[str, Any]) -> Figure:
    """Energy of the last frame by wavenumber, and its ratio to the truth's.

    Models without energy above wavenumber 0 (the spatial mean) have no line.
    """
    x, _ = _axes_of(curves)
    truth = np.asarray(entry(curves, "truth_spectrum", where="curves.json"), dtype=float)[1:] / len(x) ** 2
    wavenumber = np.arange(1, len(truth) + 1)
    # Below this lies round-off of float32 fields, not signal.
    floor = 1e-12 * truth.max()
    figure = Figure(figsize=(_WIDTH, 4.4), layout="constrained")
    energy, ratio = figure.subplots(1, 2)
    energy.plot(wavenumber, np.maximum(truth, floor), color=TRUTH_COLOUR, linewidth=2.6)
    ends = [("truth", TRUTH_COLOUR, max(truth[-1], floor))]
    ratio.axhspan(0.5, 2, color=_GRID, linewidth=0)
    ratio.axhline(1, color=TRUTH_COLOUR, linewidth=1)
    ratio.set_ylim(0.05, 20)
    for name in entry(curves, "models", where="curves.json"):
        model, values = model_named(name), _curve(curves, name, "spectrum")[1:] / len(x) ** 2
        if values.max() <= floor:
            continue
        values = np.maximum(values, floor)
        energy.plot(wavenumber, values, color=model.colour, linestyle=model.dashes, linewidth=1.5)
        ends.append((model.label, model.colour, values[-1]))
        if model.trivial:
            continue
        ratio.plot(
            wavenumber,
            values / np.maximum(truth, floor),
            color=model.colour,
            linestyle=model.dashes,
            linewidth=1.5,
        )
    for axes in (energy, ratio):
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        _plain_log(axes.yaxis)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlim(1, wavenumber[-1])
        axes.set_xlabel("wavenumber k (periods per domain)")
    energy.set_title("energy |û(k)|² / N²")
    ratio.set_title("energy of the model over energy of the truth")
    _label_ends(energy, ends)
    return figure


@_styled
def calibration(curves: Mapping[str, Any]) -> Figure:
    """Coverage of the central 90 % interval over time, and where the truth ranks among the members."""
    _, times = _axes_of(curves)
    models = entry(curves, "models", where="curves.json")
    ensembles = [name for name in models if "ranks" in models[name]]
    if not ensembles:
        raise IntegrityError("has no ensemble", where="curves.json")
    figure = Figure(figsize=(_WIDTH, 6.6), layout="constrained")
    upper, lower = np.asarray(figure.subfigures(2, 1, height_ratios=(1.15, 1)))
    axes = upper.subplots()
    axes.axhspan(0.85, 0.95, color=_GRID, linewidth=0)
    axes.axhline(0.9, color=TRUTH_COLOUR, linewidth=1)
    ends, lowest = [("nominal 90 %", TRUTH_COLOUR, 0.9)], 0.75
    for name in ensembles:
        model, coverage = model_named(name), _curve(curves, name, "coverage")
        axes.plot(times, coverage, color=model.colour, linestyle=model.dashes)
        ends.append((model.label, model.colour, coverage[-1]))
        lowest = min(lowest, float(coverage.min()) - 0.03)
    axes.set_xlim(times[0], times[-1])
    axes.set_ylim(max(0.0, lowest), 1)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    axes.set_xlabel("time t")
    axes.set_title("truth inside the central 90 % of the ensemble")
    _label_ends(axes, ends)

    panels = np.atleast_1d(np.asarray(lower.subplots(1, len(ensembles), sharey=True)))
    for name, panel in zip(ensembles, panels, strict=True):
        model, counts = model_named(name), _curve(curves, name, "ranks")
        panel.bar(np.arange(len(counts)), counts * len(counts) / counts.sum(), width=0.86, color=model.colour)
        panel.axhline(1, color=TRUTH_COLOUR, linewidth=1)
        panel.set_title(model.label)
        panel.set_xlabel("members below the truth")
        panel.grid(visible=False, axis="x")
    panels[0].set_ylabel("frequency / expected")
    return figure


@_styled
def loss_curves(training: Mapping[str, Records]) -> Figure:
    """Loss, its terms and the validation score over steps, one panel per training stage.

    Raises:
        IntegrityError: a stage has no records.
    """
    colours = {
        "autoencoder": "#5a5f69",
        "operator": MODELS["operator"].colour,
        "diffusion": MODELS["diffusion"].colour,
        "consistency": MODELS["consistency_1"].colour,
    }
    rows = -(-len(training) // 2)
    figure = Figure(figsize=(_WIDTH, 3.6 * rows), layout="constrained")
    panels = np.asarray(figure.subplots(rows, 2, squeeze=False)).flatten()
    for (stage, records), axes in zip(training.items(), panels, strict=False):
        if not records:
            raise IntegrityError("has no records", where=f"{stage}/logs/metrics.jsonl")
        colour = colours.get(stage, _INK)
        terms = {name for record in records for name in record if name.startswith("L_")}
        validations = {name for record in records for name in record if name.startswith("validation_")}
        for term, dashes in zip(sorted(terms), ("--", "-.", ":", (0, (1, 1)), (0, (5, 1))), strict=False):
            steps, values = _series(records, term)
            axes.plot(steps, values, color=colour, alpha=0.75, linestyle=dashes, linewidth=0.9, label=term)
        steps, values = _series(records, "loss")
        axes.plot(steps, values, color=colour, linewidth=1.5, label="loss")
        for name, marker in zip(sorted(validations), "os^v", strict=False):
            steps, values = _series(records, name)
            axes.plot(
                steps,
                values,
                color=_INK,
                linewidth=1,
                marker=marker,
                markersize=5.5,
                label=name.replace("_", " ").replace("l2", "L2"),
            )
        axes.set_title(stage)
        axes.set_yscale("log")
        _plain_log(axes.yaxis)
        axes.set_xlim(0, records[-1]["steps"] * 1.02)
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.set_xlabel("step")
        axes.legend(
            loc="lower right",
            bbox_to_anchor=(1, 1),
            ncols=3,
            frameon=False,
            fontsize=8.5,
            handlelength=1.7,
            columnspacing=1.2,
            borderaxespad=0.2,
        )
    for axes in panels[len(training) :]:
        axes.set_visible(False)
    return figure


def symmetric_limit(error: Array) -> float:
    """Half-width of a colour scale around zero that 99.8 % of the finite errors fit in, and never zero."""
    finite = np.abs(error[np.isfinite(error)])
    return max(float(np.quantile(finite, 0.998)), 1e-12) if finite.size else 1.0


def _axes_of(curves: Mapping[str, Any]) -> tuple[Array, Array]:
    """Positions [x] and the times [t] of scored frames."""
    coordinates = np.asarray(entry(curves, "coordinates", where="curves.json"), dtype=float)
    times = np.asarray(entry(curves, "times", where="curves.json"), dtype=float)
    if coordinates.ndim != 2 or coordinates.shape[1] != 1:
        raise NotImplementedError("fields of two axes are drawn as maps; they come with the first 2D problem")
    return coordinates[:, 0], times[1:]


def _chosen(curves: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Label, number and error of the example trajectories."""
    chosen = entry(curves, "examples", where="curves.json")
    return [
        {key: entry(e, key, where="curves.json") for key in ("label", "trajectory", "error")} for e in chosen
    ]


def _error(example: Mapping[str, Any]) -> str:
    return "not finite" if example["error"] is None else f"rel. L2 {example['error']:#.3g}"


def _curve(curves: Mapping[str, Any], model: str, name: str) -> Array:
    return np.asarray(entry(curves, "models", model, name, where="curves.json"), dtype=float)


def _example(examples: Mapping[str, Array], name: str) -> Array:
    return entry(dict(examples), name, where="examples.safetensors")


def _series(records: Records, name: str) -> tuple[list[int], list[float]]:
    """Steps and values of one name; what was not finite is a gap."""
    found = [record for record in records if name in record]
    values = [np.nan if record[name] is None else record[name] for record in found]
    return [record["step"] for record in found], values


def _plain_log(axis: Axis) -> None:
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


def _label_ends(axes: Axes, ends: Sequence[tuple[str, str, float]]) -> None:
    """Write each line's label right of its end, moved apart where they would overlap.

    Limits and scale of the axes must be final. ends: label, colour and last value of each line.
    """
    figure = axes.get_figure(root=False)
    assert figure is not None
    inches = figure.bbox.height / figure.get_dpi() - 0.9  # what title and labels of the x axis leave
    gap = min(0.19 / inches, 1.0 / len(ends))
    transform = axes.transScale + axes.transLimits
    heights = transform.transform([(axes.get_xlim()[1], end) for _, _, end in ends])[:, 1]
    # A line that ends before the axis does, for it was not finite any more, went out at the top.
    at = np.clip(np.nan_to_num(heights, nan=1.0), 0.0, 1.0).tolist()
    order = sorted(range(len(ends)), key=lambda index: at[index])
    place = {index: at[index] for index in order}
    for below, above in pairwise(order):
        place[above] = max(place[above], place[below] + gap)
    excess = place[order[-1]] - 1.0
    if excess > 0:
        place[order[-1]] = 1.0
        for above, below in zip(order[::-1], order[-2::-1], strict=False):
            place[below] = min(place[below], place[above] - gap)
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
