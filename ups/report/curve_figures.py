"""Figures of numbers: errors, spectra, calibration, training. Pure functions from data to matplotlib figures."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator, PercentFormatter

from ups.errors import IntegrityError
from ups.metric_labels import METRICS, Metric
from ups.model_labels import MODELS
from ups.report.catalogue import TRUTH_COLOUR, entry, model_named
from ups.report.drawing import (
    FAINT,
    GRID,
    INK,
    WIDTH,
    Array,
    Curves,
    curve,
    label_ends,
    plain_log,
    positions,
    scored_fields,
    styled,
    times,
)
from ups.report.writing import number, percent

Records = Sequence[Mapping[str, Any]]
_PANELS = 3  # beside each other


@styled
def error_over_time(curves: Curves) -> Figure:
    """Relative L2 of each frame, mean over trajectories, and the operator's 10 to 90 % band."""
    at_times = times(curves)
    figure = Figure(figsize=(WIDTH, 4.6), layout="constrained")
    axes = figure.subplots()
    operator = MODELS["operator"]
    low, high = (curve(curves, "operator", f"error_{level}") for level in (10, 90))
    axes.fill_between(at_times, low, high, color=operator.colour, alpha=0.16, linewidth=0)
    at = len(at_times) // 2
    axes.text(
        at_times[at],
        np.sqrt(max(low[at], 1e-12) * max(curve(curves, "operator", "error")[at], 1e-12)),
        "operator: 10 to 90 % of trajectories",
        color=operator.colour,
        fontsize=9,
        ha="center",
        va="center",
    )
    ends = []
    for name in entry(curves, "models", where="curves.json"):
        model, error = model_named(name), curve(curves, name, "error")
        shown = np.where(error > 0, error, np.nan)
        axes.plot(at_times, shown, color=model.colour, linestyle=model.dashes)
        ends.append((model.label, model.colour, shown[-1]))
    axes.set_yscale("log")
    plain_log(axes.yaxis)
    axes.set_xlim(at_times[0], at_times[-1])
    axes.set_xlabel("time t")
    axes.set_ylabel("relative L2 of the frame")
    label_ends(axes, ends)
    return figure


@styled
def errors_by_lead(curves: Curves, records: Records) -> Figure:
    """All metrics that have a lead time, a panel for each and, where they have a unit, for each field.

    Raises:
        IntegrityError: there is none, for they are of an earlier version.
    """
    shown: dict[tuple[str, str | None], dict[str, Array]] = {}
    for record in records:
        if record.get("by_lead") is not None:
            values = np.asarray(record["by_lead"], dtype=float)
            shown.setdefault((record["metric"], record["field"]), {})[record["model"]] = values
    if not shown:
        raise IntegrityError("has no errors by lead time", where="metrics.json", fix="evaluate the run again")
    known = {metric.name: metric for metric in METRICS}
    order = [*known, *(name for name, _ in shown)]
    places = sorted(shown, key=lambda place: (place[1] is not None, order.index(place[0])))
    of_all = sum(field is None for _, field in places)
    gap = -of_all % _PANELS if of_all < len(places) else 0  # each metric with a unit begins a row
    rows = -(-(len(places) + gap) // _PANELS)
    figure = Figure(figsize=(WIDTH, 0.9 + 2.15 * rows), layout="constrained")
    panels = np.asarray(figure.subplots(rows, _PANELS, sharex=True, squeeze=False)).flatten()
    drawn = [*panels[:of_all], *panels[of_all + gap :]]
    lines = {}
    for (name, field), axes in zip(places, drawn, strict=False):
        metric = known.get(name, Metric(name, "", name.replace("_", " "), ""))
        for model, line in _metric_by_lead(axes, times(curves), metric, shown[name, field]).items():
            lines.setdefault(model, line)
        title = f"1 − {metric.label.lower()}" if name == "correlation" else metric.label
        axes.set_title(title if field is None else f"{title}: {field}", fontsize=9)
    for axes in {*panels} - {*drawn[: len(places)]}:
        axes.set_axis_off()
    for axes in panels[-_PANELS:]:
        axes.set_xlabel("time t")
    figure.legend(
        handles=[lines[name] for name in MODELS if name in lines],
        loc="outside upper left",
        ncols=4,
        frameon=False,
        fontsize=9,
    )
    return figure


def _metric_by_lead(axes: Axes, at: Array, metric: Metric, models: Mapping[str, Array]) -> dict[str, Line2D]:
    """A line per model: logarithmic where less is better, else with a line at the best value. Returns the lines."""
    lines = {}
    for name, values in models.items():
        model = model_named(name)
        error = 1 - values if metric.name == "correlation" else values
        if metric.target == 0 or metric.name == "correlation":
            error = np.where(error > 0, error, np.nan)
        style: Any = {"color": model.colour, "linestyle": model.dashes, "linewidth": 1.3}
        (lines[name],) = axes.plot(at, error, label=model.label, **style)
    if metric.target == 0 or metric.name == "correlation":
        axes.set_yscale("log")
        plain_log(axes.yaxis)
    elif metric.target is not None and math.isfinite(metric.target):
        axes.axhline(metric.target, color=TRUTH_COLOUR, linewidth=1)
    if metric.kind == "percent":
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    axes.set_xlim(at[0], at[-1])
    return lines


@styled
def error_histogram(curves: Curves) -> Figure:
    """How the relative L2 of a map is spread over samples, with its mean and its median; a row per model."""
    models = list(entry(curves, "models", where="curves.json"))
    errors = {name: curve(curves, name, "trajectory") for name in models}
    shown = {name: values[np.isfinite(values) & (values > 0)] for name, values in errors.items()}
    everything = np.concatenate(list(shown.values()))
    low, high = (everything.min(), everything.max()) if everything.size else (0.1, 1.0)
    bins = np.geomspace(low / 1.05, high * 1.05, 49)
    figure = Figure(figsize=(WIDTH, 0.35 + 0.72 * len(models)), layout="constrained")
    panels = np.atleast_1d(np.asarray(figure.subplots(len(models), 1, sharex=True)))
    for name, axes in zip(models, panels, strict=True):
        model, values = model_named(name), errors[name]
        axes.hist(shown[name], bins=bins, color=model.colour, alpha=0.45, linewidth=0)
        axes.hist(shown[name], bins=bins, color=model.colour, histtype="step", linewidth=1.2)
        mean, median = float(values.mean()), float(np.median(values))
        for value, dashes in ((mean, (0, (3, 1.5))), (median, "-")):
            if value > 0:
                axes.axvline(value, color=INK, linestyle=dashes, linewidth=1.4)
        axes.set_ylabel(model.label, rotation=0, ha="right", va="center", labelpad=8)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.text(
            1.01,
            0.5,
            f"mean {number(mean)}\nmedian {number(median)}",
            transform=axes.transAxes,
            va="center",
            fontsize=9,
        )
    panels[-1].set_xscale("log")
    panels[-1].set_xlim(bins[0], bins[-1])
    plain_log(panels[-1].xaxis)
    panels[-1].set_xlabel("relative L2 of a sample; dashed: mean, solid: median")
    return figure


@styled
def spectrum(curves: Curves) -> Figure:
    """Energy of the last frame by wavenumber, and its ratio to the truth's; a row per scored field.

    Models without energy above wavenumber 0 (the spatial mean) have no line.
    """
    fields = scored_fields(curves)
    axes_of_space = positions(curves)
    points = int(np.prod([len(axis) for axis in axes_of_space]))
    height = 4.4 if len(fields) == 1 else 2.9 * len(fields)
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    panels = np.asarray(figure.subplots(len(fields), 2, squeeze=False))
    for place, ((_, name), (energy, ratio)) in enumerate(zip(fields, panels, strict=True)):
        _energy_and_ratio(curves, place, points, energy, ratio, len(fields))
        of_field = f"{name}: " if len(fields) > 1 else ""
        within = "" if len(axes_of_space) == 1 else ", summed over a ring of |k|"
        energy.set_title(f"{of_field}energy |û(k)|² / N²{within}")
        ratio.set_title(f"{of_field}energy of the model over the truth’s")
    for axes in panels[-1]:
        axes.set_xlabel("wavenumber k (periods per domain)")
    return figure


def _energy_and_ratio(curves: Curves, place: int, points: int, energy: Axes, ratio: Axes, rows: int) -> None:
    """Both panels of the `place`-th of `rows` scored fields, from wavenumber 1 on."""

    def scaled(values: Any) -> Array:
        return np.asarray(values, dtype=float)[1:] / points**2

    truth = scaled(entry(curves, "truth_spectrum", where="curves.json")[place])
    wavenumber = np.arange(1, len(truth) + 1)
    # Below this lies round-off of float32 fields, not signal.
    floor = 1e-12 * truth.max()
    energy.plot(wavenumber, np.maximum(truth, floor), color=TRUTH_COLOUR, linewidth=2.6)
    ends = [("truth", TRUTH_COLOUR, max(truth[-1], floor))]
    ratio.axhspan(0.5, 2, color=GRID, linewidth=0)
    ratio.axhline(1, color=TRUTH_COLOUR, linewidth=1)
    ratio.set_ylim(0.05, 20)
    for name in entry(curves, "models", where="curves.json"):
        model = model_named(name)
        values = scaled(entry(curves, "models", name, "spectrum", where="curves.json")[place])
        if values.max() <= floor:
            continue
        values = np.maximum(values, floor)
        style: Any = {"color": model.colour, "linestyle": model.dashes, "linewidth": 1.5}
        energy.plot(wavenumber, values, **style)
        ends.append((model.label, model.colour, values[-1]))
        if not model.trivial:
            ratio.plot(wavenumber, values / np.maximum(truth, floor), **style)
    for axes in (energy, ratio):
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        plain_log(axes.yaxis)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlim(1, wavenumber[-1])
    label_ends(energy, ends, rows=rows)


@styled
def calibration(curves: Curves) -> Figure:
    """Coverage of the central 90 % interval over time, and where the truth ranks among the members.

    A map has one frame: its coverage is written above the ranks.
    """
    ensembles = _ensembles(curves)
    if entry(curves, "is_map", where="curves.json"):
        figure = Figure(figsize=(WIDTH, 3.1), layout="constrained")
        panels = np.atleast_1d(np.asarray(figure.subplots(1, len(ensembles), sharey=True)))
    else:
        figure = Figure(figsize=(WIDTH, 6.6), layout="constrained")
        upper, lower = np.asarray(figure.subfigures(2, 1, height_ratios=(1.15, 1)))
        _coverage_over_time(curves, ensembles, upper.subplots())
        panels = np.atleast_1d(np.asarray(lower.subplots(1, len(ensembles), sharey=True)))
    for name, panel in zip(ensembles, panels, strict=True):
        model, counts = model_named(name), curve(curves, name, "ranks")
        panel.bar(np.arange(len(counts)), counts * len(counts) / counts.sum(), width=0.86, color=model.colour)
        panel.axhline(1, color=TRUTH_COLOUR, linewidth=1)
        title = model.label
        if entry(curves, "is_map", where="curves.json"):
            title += f": {percent(float(curve(curves, name, 'coverage')[-1]))} inside"
        panel.set_title(title)
        panel.set_xlabel("members below the truth")
        panel.grid(visible=False, axis="x")
    panels[0].set_ylabel("frequency / expected")
    return figure


@styled
def reliability(curves: Curves) -> Figure:
    """Reliability diagram of the ensembles' quantiles, and how far each is from the diagonal."""
    figure = Figure(figsize=(WIDTH, 4.4), layout="constrained")
    diagram, distance = figure.subplots(1, 2)
    diagram.plot([0, 1], [0, 1], color=TRUTH_COLOUR, linewidth=1)
    distance.axhspan(-0.05, 0.05, color=GRID, linewidth=0)
    distance.axhline(0, color=TRUTH_COLOUR, linewidth=1)
    ends = []
    for name in _ensembles(curves):
        model, counts = model_named(name), curve(curves, name, "ranks")
        nominal = np.arange(1, len(counts)) / len(counts)
        below = np.cumsum(counts)[:-1] / counts.sum()
        style: Any = {"color": model.colour, "linestyle": model.dashes, "marker": "o", "markersize": 3}
        diagram.plot(nominal, below, **style)
        distance.plot(nominal, below - nominal, **style)
        ends.append(
            (
                f"{model.label}: {number(float(np.abs(below - nominal).mean()), 2)}",
                model.colour,
                (below - nominal)[-1],
            )
        )
    for axes in (diagram, distance):
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
        axes.set_xlabel("quantile of the ensemble")
    diagram.set_ylim(0, 1)
    diagram.set_title("truth below the quantile")
    distance.set_title("distance from the quantile; beside each name its mean")
    largest = max(float(np.abs(line.get_ydata()).max()) for line in distance.get_lines())  # type: ignore[arg-type]
    distance.set_ylim(-max(0.06, 1.1 * largest), max(0.06, 1.1 * largest))
    label_ends(distance, ends)
    return figure


def _ensembles(curves: Curves) -> list[str]:
    models = entry(curves, "models", where="curves.json")
    found = [name for name in models if "ranks" in models[name]]
    if not found:
        raise IntegrityError("has no ensemble", where="curves.json")
    return found


def _coverage_over_time(curves: Curves, ensembles: Sequence[str], axes: Axes) -> None:
    at = times(curves)
    axes.axhspan(0.85, 0.95, color=GRID, linewidth=0)
    axes.axhline(0.9, color=TRUTH_COLOUR, linewidth=1)
    ends, lowest = [("nominal 90 %", TRUTH_COLOUR, 0.9)], 0.75
    for name in ensembles:
        model, coverage = model_named(name), curve(curves, name, "coverage")
        axes.plot(at, coverage, color=model.colour, linestyle=model.dashes)
        ends.append((model.label, model.colour, coverage[-1]))
        lowest = min(lowest, float(coverage.min()) - 0.03)
    axes.set_xlim(at[0], at[-1])
    axes.set_ylim(max(0.0, lowest), 1)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    axes.set_xlabel("time t")
    axes.set_title("truth inside the central 90 % of the ensemble")
    label_ends(axes, ends)


@styled
def loss_curves(training: Mapping[str, Records]) -> Figure:
    """Loss, its terms and the validation score over steps, one panel per training stage.

    Of several problems the mean, and thinner the validation score of each.

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
    figure = Figure(figsize=(WIDTH, 3.6 * rows), layout="constrained")
    panels = np.asarray(figure.subplots(rows, 2, squeeze=False)).flatten()
    for (stage, records), axes in zip(training.items(), panels, strict=False):
        if not records:
            raise IntegrityError("has no records", where=f"{stage}/logs/metrics.jsonl")
        if not any(record["steps"] for record in records):
            axes.set_title(f"{stage}: nothing to train")
            axes.set_axis_off()
            continue
        colour = colours.get(stage, INK)
        names = {name for record in records for name in record}
        terms = {name for name in names if name.startswith("L_") and "/" not in name}
        validations = {
            name
            for name in names - {"validation_seconds"}
            if name.startswith("validation_") and "/" not in name
        }
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
                color=INK,
                linewidth=1,
                marker=marker,
                markersize=5.5,
                label=name.replace("_", " ").replace("l2", "L2"),
            )
        by_problem = sorted(name for name in names if name.startswith("validation_") and "/" in name)
        _validation_by_problem(axes, records, by_problem)
        axes.set_title(stage)
        axes.set_yscale("log")
        plain_log(axes.yaxis)
        axes.set_xlim(0, records[-1]["steps"] * 1.02)
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.set_xlabel("step")
        axes.legend(
            handles=[line for line in axes.get_lines() if line.get_gid() is None],
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


def _validation_by_problem(axes: Axes, records: Records, names: Sequence[str]) -> None:
    """Thin lines for `metric/problem`, with a legend of their own inside."""
    lines = []
    for name, dashes in zip(names, ("-", "--", "-.", ":") * len(names), strict=False):
        steps, values = _series(records, name)
        style: Any = {"color": FAINT, "linestyle": dashes, "linewidth": 1.2, "marker": ".", "markersize": 4}
        lines += axes.plot(steps, values, label=name.partition("/")[2], gid=name, **style)
    if lines:
        title = f"{names[0].partition('/')[0].replace('_', ' ').replace('l2', 'L2')} of"
        legend = axes.legend(
            handles=lines, loc="best", fontsize=8, title=title, framealpha=0.8, edgecolor="none"
        )
        legend.get_title().set_fontsize(8)
        axes.add_artist(legend)


def _series(records: Records, name: str) -> tuple[list[int], list[float]]:
    """Steps and values of one name; what was not finite is a gap."""
    found = [record for record in records if name in record]
    values = [np.nan if record[name] is None else record[name] for record in found]
    return [record["step"] for record in found], values
