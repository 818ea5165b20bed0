"""The page of a sweep: one self-contained file, from its ranking."""

from collections.abc import Mapping
from typing import Any

from ups.report import template, writing
from ups.report.drawing import render
from ups.report.embedding import as_address
from ups.report.page import Tile
from ups.report.sweep_figures import complete, learning_curves, parallel_coordinates
from ups.report.writing import SPACE, duration, number


def html(sweep: Mapping[str, Any]) -> str:
    """See `ups.pipeline.sweeps.report.write_sweep_report` for what it is made of."""
    rows = sweep["rows"]
    curves = any(curve for row in rows for curve in row["curves"])
    return template.render(
        "sweep_page.html",
        sweep=sweep,
        rows=[dict(row) | {"complete": complete(row)} for row in rows],
        tiles=_tiles(rows),
        problems=list(dict.fromkeys(problem for row in rows for problem in row["test"])),
        priced=any(row["cost_usd"] is not None for row in rows),
        interval=_interval,
        parallel=as_address(render(parallel_coordinates(rows, sweep["keys"]), "svg"), "svg")
        if curves
        else None,
        learning=as_address(render(learning_curves(rows), "svg"), "svg") if curves else None,
    )


def _interval(half_width: float | None) -> str:
    return "" if half_width is None else f"±{SPACE}{number(half_width, 2)}"


def _tiles(rows: list[Mapping[str, Any]]) -> list[Tile]:
    done = [row for row in rows if complete(row)]
    early = sum(row["state"] == "stopped" for row in rows)
    seconds = sum(row["seconds"] or 0.0 for row in rows)
    steps = sum(row["step"] * row["seeds"] for row in rows)
    whole = sum(row["steps"] * row["seeds"] for row in rows)
    costs = [row["cost_usd"] for row in rows if row["cost_usd"] is not None]
    tiles = [
        Tile(f"{len(done)} of {len(rows)}", "configurations trained to their end", f"{early} ended early")
    ]
    if done:
        best = done[0]
        tiles.insert(0, Tile(number(best["error"]), "lowest validation error", best["name"]))
    tiles.append(
        Tile(duration(seconds), "of training in all", f"{writing.percent(steps / whole)} of all steps")
    )
    if costs:
        tiles.append(Tile(f"{sum(costs):.2f}{SPACE}USD", "for these trainings", "without the stages before"))
    return tiles
