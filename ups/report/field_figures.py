"""Figures of fields: example trajectories over space and time, on a line and on a square.

Of a problem with one scored field, three trajectories are shown (good, median, worst); of one with several, each
field of the median one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ups.errors import IntegrityError
from ups.model_labels import MODELS
from ups.report.catalogue import TRUTH_COLOUR, entry
from ups.report.drawing import WIDTH, Array, Curves, positions, scored_fields, styled, times

Examples = Mapping[str, Array]
"""`truth` [3, 1 + t, Q, C]; [3, t, Q, C] each: `operator`, `diffusion` (mean of the ensemble),
`diffusion_deviation`, `diffusion_lower`, `diffusion_upper`."""

_EXTEND = {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}


@dataclass(frozen=True)
class _Shown:
    """One row or panel: a field of an example trajectory.

    Attributes:
        place: of the trajectory among the examples.
        trajectory: "label: trajectory number", of a map "sample".
        error: the operator's over the trajectory, in words.
    """

    place: int
    channel: int
    field: str
    trajectory: str
    error: str


@dataclass(frozen=True)
class _Picture:
    """Values over two axes, and which of the colour scales they have."""

    values: Array
    scale: str
    title: str


@styled
def space_time(curves: Curves, examples: Examples) -> Figure:
    """Truth, operator, its error and the diffusion model's spread over space (right) and time (up)."""
    (x,), at = positions(curves), times(curves)
    shown = _shown(curves)
    several = len(scored_fields(curves)) > 1
    rows = []
    for row in shown:
        truth, operator, error, spread = _values(examples, row)
        first = "truth" if several else row.trajectory
        rows.append(
            [
                _Picture(truth, "field", first),
                _Picture(operator, "field", "operator" if several else f"operator, {row.error}"),
                _Picture(error, "error", "operator − truth"),
                _Picture(spread, "spread", _spread_title(curves)),
            ]
        )
    figure = Figure(figsize=(WIDTH, 9.4 if not several else 2.7 * len(rows) + 0.4), layout="constrained")
    panels = _draw(figure, rows, [row.field for row in shown], x, at, shared=not several)
    for row, axes in zip(shown, panels[:, 0], strict=True):
        axes.set_ylabel(f"{row.field}\ntime t" if several else "time t")
    for axes in panels[-1]:
        axes.set_xlabel("position x")
    if several:
        _head(figure, shown[0])
    return figure


@styled
def images(curves: Curves, examples: Examples) -> Figure:
    """The last frame on a square: given fields, truth, operator, its error and the diffusion model's spread."""
    x, y = positions(curves)
    shown = _shown(curves)
    several = len(scored_fields(curves)) > 1
    given = [
        (channel, field["name"])
        for channel, field in enumerate(entry(curves, "fields", where="curves.json"))
        if field["given"]
    ]

    def square(values: Array) -> Array:
        return values.reshape(len(x), len(y)).T  # the first axis of the arrays runs to the right

    rows = []
    for row in shown:
        inputs = [
            _Picture(
                square(_example(examples, "truth")[row.place, -1, :, channel]), *(f"{name} (given)",) * 2
            )
            for channel, name in given
        ]
        truth, operator, error, spread = (square(values[-1]) for values in _values(examples, row))
        rows.append(
            [
                *inputs,
                _Picture(truth, "field", f"{row.field}: truth"),
                _Picture(operator, "field", "operator"),
                _Picture(error, "error", "operator − truth"),
                _Picture(spread, "spread", "diffusion, spread"),
            ]
        )
    height = (WIDTH - 0.8) / len(rows[0]) * len(rows) + 1.0
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    panels = _draw(figure, rows, [row.field for row in shown], x, y, shared=not several)
    for row, axes in zip(shown, panels[:, 0], strict=True):
        axes.set_ylabel(row.field if several else f"{row.trajectory}\noperator: {row.error}")
    for axes in panels[-1]:
        axes.set_xlabel("x")
    if several:
        _head(figure, shown[0])
    for axes in panels.flatten():
        axes.set_aspect("equal")
        axes.xaxis.set_major_locator(MaxNLocator(2))
        axes.yaxis.set_major_locator(MaxNLocator(2))
    return figure


@styled
def final_frame(curves: Curves, examples: Examples) -> Figure:
    """The last frame on a line: truth, operator, and the ensemble with its central 90 %."""
    (x,), at = positions(curves), times(curves)
    shown = _shown(curves)
    several = len(scored_fields(curves)) > 1
    figure = Figure(figsize=(WIDTH, 3.9), layout="constrained")
    panels = np.asarray(figure.subplots(1, len(shown), sharex=True, squeeze=False))[0]
    diffusion, operator = MODELS["diffusion"], MODELS["operator"]
    for row, axes in zip(shown, panels, strict=True):
        last = {name: values[row.place, -1, :, row.channel] for name, values in examples.items()}
        axes.fill_between(
            x,
            _example(last, "diffusion_lower"),
            _example(last, "diffusion_upper"),
            color=diffusion.colour,
            alpha=0.25,
            linewidth=0,
            label=f"{diffusion.label}, central 90 %",
        )
        axes.plot(x, _example(last, "truth"), color=TRUTH_COLOUR, linewidth=2.6, label="truth")
        for model in ("operator", "diffusion"):
            style = {"operator": operator, "diffusion": diffusion}[model]
            axes.plot(
                x,
                _example(last, model),
                color=style.colour,
                linewidth=1.4,
                linestyle=(0, (4, 2)) if model == "diffusion" else "-",
                label=style.label if model == "operator" else f"{style.label}, mean",
            )
        axes.set_title(row.field if several else f"{row.trajectory}, {row.error}")
        axes.set_xlabel("position x")
        axes.margins(x=0)
    when = "" if entry(curves, "is_map", where="curves.json") else f" at t = {at[-1]:.3g}"
    panels[0].set_ylabel(f"value{when}" if several else f"{shown[0].field}{when}")
    if several:
        _head(figure, shown[0])
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False)
    return figure


def _head(figure: Figure, shown: _Shown) -> None:
    """Which trajectory a figure shows all fields of."""
    figure.suptitle(f"{shown.trajectory}, operator: {shown.error}", x=0.01, ha="left", fontsize=10.5)


def symmetric_limit(error: Array) -> float:
    """Half-width of a colour scale around zero that 99.8 % of the finite errors fit in, and never zero."""
    finite = np.abs(error[np.isfinite(error)])
    return max(float(np.quantile(finite, 0.998)), 1e-12) if finite.size else 1.0


def _draw(
    figure: Figure, rows: list[list[_Picture]], fields: list[str], x: Array, y: Array, *, shared: bool
) -> Any:
    """The pictures and their colour bars: one of each kind below all, or, of fields with different units, beside
    each row. Returns the panels [rows, columns]."""
    panels = np.asarray(figure.subplots(len(rows), len(rows[0]), sharex=True, sharey=True, squeeze=False))
    together = [list(range(len(rows)))] if shared else [[place] for place in range(len(rows))]
    for places in together:
        pictures = [picture for place in places for picture in rows[place]]
        for kind in dict.fromkeys(picture.scale for picture in pictures):
            scale = _colours(kind, [picture for picture in pictures if picture.scale == kind])
            members: list[Axes] = []
            for place in places:
                for column, picture in enumerate(rows[place]):
                    if picture.scale != kind:
                        continue
                    axes = panels[place, column]
                    axes.pcolormesh(x, y, picture.values, shading="nearest", rasterized=True, **scale["mesh"])
                    axes.set_title(picture.title, fontsize=9.5)
                    axes.grid(visible=False)
                    axes.spines[["top", "right"]].set_visible(True)
                    members.append(axes)
            columns = len(members) // len(places)
            bar = figure.colorbar(
                members[0].collections[0],
                ax=members,
                location="bottom" if shared else "right",
                aspect=18 * columns if shared else 16,
                pad=0.015,
                extend=scale["extend"],
                ticks=MaxNLocator((4 if len(rows[0]) < 5 else 3) * columns if shared else 5),
            )
            if shared:
                bar.set_label(scale["label"].format(field=fields[places[0]]))
            bar.ax.spines[:].set_visible(False)
    return panels


def _colours(kind: str, pictures: Sequence[_Picture]) -> dict[str, Any]:
    """Colours, ends and label of a scale: the truth's range for fields, around zero for errors, from zero for
    spreads, its own range for a given field."""
    values = np.stack([picture.values for picture in pictures])
    match kind:
        case "field":
            truth = np.stack([picture.values for picture in pictures[::2]])
            beyond = (bool(values.min() < truth.min()), bool(values.max() > truth.max()))
            return {
                "mesh": {"cmap": "viridis", "vmin": truth.min(), "vmax": truth.max()},
                "extend": _EXTEND[beyond],
                "label": "{field}: truth and operator",
            }
        case "error":
            limit = symmetric_limit(values)
            return {
                "mesh": {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit},
                "extend": "both",
                "label": "error of {field}",
            }
        case "spread":
            return {
                "mesh": {"cmap": "magma_r", "vmin": 0.0, "vmax": symmetric_limit(values)},
                "extend": "max",
                "label": "standard deviation of {field}",
            }
        case given:
            mesh = {"cmap": "cividis", "vmin": values.min(), "vmax": values.max()}
            return {"mesh": mesh, "extend": "neither", "label": given}


def _shown(curves: Curves) -> list[_Shown]:
    fields = scored_fields(curves)
    kind = "sample" if entry(curves, "is_map", where="curves.json") else "trajectory"
    chosen = []
    for place, example in enumerate(entry(curves, "examples", where="curves.json")):
        label, number, error = (
            entry(example, key, where="curves.json") for key in ("label", "trajectory", "error")
        )
        score = "not finite" if error is None else f"rel. L2 {error:#.3g}"
        chosen.append((place, label, f"{label}: {kind} {number}", score))
    if len(fields) == 1:
        ((channel, name),) = fields
        return [_Shown(place, channel, name, text, score) for place, _, text, score in chosen]
    median = [example for example in chosen if example[1] == "median"]
    if not median:
        raise IntegrityError("has no median example", where="curves.json")
    place, _, text, score = median[0]
    return [_Shown(place, channel, name, text, score) for channel, name in fields]


def _values(examples: Examples, shown: _Shown) -> tuple[Array, Array, Array, Array]:
    """Truth, operator, error and spread of a row, each [t, Q]."""
    truth = _example(examples, "truth")[shown.place, 1:, :, shown.channel]
    operator = _example(examples, "operator")[shown.place, ..., shown.channel]
    spread = _example(examples, "diffusion_deviation")[shown.place, ..., shown.channel]
    return truth, operator, operator - truth, spread


def _spread_title(curves: Curves) -> str:
    members = entry(curves, "models", "diffusion", "members", where="curves.json")
    return f"diffusion, spread ({members} members)"


def _example(examples: Examples, name: str) -> Array:
    return entry(dict(examples), name, where="examples")
