"""The page of a run: one self-contained file, from what the run's directory points to.

Without torch and matplotlib: the figures were drawn and sealed when the run was evaluated, and a page takes
a fraction of a second.
"""

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from ups.errors import IntegrityError
from ups.report import catalogue, writing
from ups.report.catalogue import model_named
from ups.report.results import COVERAGE, HEADLINE, METRICS, Cell, Row, result_table
from ups.report.source import RunDirectory, read_bytes
from ups.report.verdict import calibration_of, verdict
from ups.report.writing import SPACE, count, duration, number, percent

_MEDIA_TYPES = {"svg": "image/svg+xml", "png": "image/png"}
_SETUP = {
    "n_members": "Members",
    "calls_per_step": "Network calls per step, operator included",
    "batch": "States advanced at a time",
}
_ISO_TIME = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d):\d\d\+00:00")
_CONVENTION = (
    "dataset", "data_version", "split", "n_trajectories", "frames", "frames_skipped", "resolution", "seed",
    "device",
)  # fmt: skip


@dataclass(frozen=True)
class Tile:
    """One large number."""

    value: str
    label: str
    detail: str


@dataclass(frozen=True)
class Stage:
    """One row of the list of stages.

    Attributes:
        seconds: what building it took, in this run or, on a HIT, in the one that built it.
        share: of the longest stage, in per cent.
    """

    name: str
    hit: bool
    reason: str
    seconds: float
    share: float
    digest: str
    result: str


def html(run_directory: Path) -> str:
    """The page of a finished run.

    Raises:
        IntegrityError: something that it shows is missing; the message says what and where.
    """
    run = RunDirectory.read(run_directory)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "duration": duration, "gibibytes": writing.gibibytes}
    built = stages(run)
    return environment.get_template("page.html").render(
        run=run,
        findings=verdict(run),
        tiles=_tiles(run),
        models=[model_named(name) for name in run.models],
        groups=result_table(run),
        setup=_setup_rows(run),
        convention={key: run.convention(key) for key in _CONVENTION},
        definitions=METRICS,
        threads=_threads(run),
        catalogue=catalogue,
        figure=lambda name: _embedded(run.figures / name),
        stages=built,
        seconds_now=sum(stage.seconds for stage in built if not stage.hit),
        seconds_reused=sum(stage.seconds for stage in built if stage.hit),
        round_trip=run.stage("cache_encode", "summary", "float16_round_trip"),
        reconstruction=run.stage("autoencoder", "summary", "validation_relative_l2"),
        members=" or ".join(sorted({str(run.of_model(model, "n_members")) for model in _ensembles(run)})),
    )


def markdown(run_directory: Path) -> str:
    """The short version: verdict, results, stages.

    Raises:
        IntegrityError: something that it shows is missing.
    """
    run = RunDirectory.read(run_directory)
    first, *others = verdict(run)
    labels = [model_named(name).label for name in run.models]
    rows: list[Row] = [row for group in result_table(run).values() for row in group]
    lines = [
        f"# {_escaped(run.name)}",
        "",
        f"{_escaped(run.convention('dataset'))} · {run.started:%Y-%m-%d %H:%M} UTC",
        "",
        f"**{_escaped(first.text)}** " + " ".join(_escaped(finding.text) for finding in others),
        "",
        *_markdown_table(["", *labels], [[row.label, *map(_markdown_cell, row.cells)] for row in rows]),
        "",
        _escaped(
            f"{run.convention('n_trajectories')} {run.convention('split')} trajectories, "
            f"{run.convention('frames')} frames of {run.convention('resolution')} points, first "
            f"{run.convention('frames_skipped')} given and not scored; decoded fields against the float32 source. "
            "Best value in bold, trivial forecasts aside."
        ),
        "",
        *_markdown_table(
            ["stage", "cache", "time", "why"],
            [
                [s.name, "HIT" if s.hit else "MISS", duration(s.seconds), _escaped(s.reason)]
                for s in stages(run)
            ],
        ),
    ]
    return "\n".join(lines) + "\n"


def stages(run: RunDirectory) -> list[Stage]:
    """All stages of the plan, as they were brought to their artifacts.

    Raises:
        IntegrityError: a planned stage has no artifact, or one of another digest.
    """
    planned: list[tuple[str, Mapping[str, Any]]] = []
    for row in run.plan:
        where = str(run.path / "plan.json")
        planned.append((catalogue.entry(row, "stage", where=where), row))
        if run.stage(planned[-1][0], "digest") != catalogue.entry(row, "digest", where=where):
            raise IntegrityError(f"{planned[-1][0]} has another digest than artifacts.json says", where=where)
    longest = max(run.stage(name, "seconds") for name, _ in planned) or 1.0
    return [
        Stage(
            name=name,
            hit=run.stage(name, "hit"),
            reason=_reason(run, name, row),
            seconds=run.stage(name, "seconds"),
            share=round(100 * run.stage(name, "seconds") / longest, 1),
            digest=run.stage(name, "digest")[:12],
            result=_result(run.stage(name, "summary")),
        )
        for name, row in planned
    ]


def _reason(run: RunDirectory, name: str, planned: Mapping[str, Any]) -> str:
    """Why it was a hit or not; with what the plan had said where that came out otherwise."""
    where = str(run.path / "plan.json")
    expected, because = (catalogue.entry(planned, key, where=where) for key in ("verdict", "reason"))
    reason = run.stage(name, "reason")
    if (expected == "HIT") != run.stage(name, "hit"):
        reason = f"{reason} (planned as {expected}: {because})"
    return _ISO_TIME.sub(r"\1 \2 UTC", reason)


def _result(summary: Mapping[str, Any]) -> str:
    """What a stage says of itself, in a few words."""
    parts = []
    if "trajectories" in summary:
        counts = summary["trajectories"]
        total = sum(counts.values()) if isinstance(counts, Mapping) else counts
        parts.append(f"{count(total)} trajectories")
    if "parameters" in summary:
        parts.append(f"{count(summary['parameters'])} weights")
    for key in ("validation_relative_l2", "validation_loss"):
        if key in summary:
            name = key.replace("_", " ").replace("l2", "L2")
            parts.append(f"{name} {number(summary[key])}")
    return ", ".join(parts)


def _tiles(run: RunDirectory) -> list[Tile]:
    error = run.record("operator", HEADLINE)
    coverage = run.value("diffusion", COVERAGE)
    built = stages(run)
    reused = sum(stage.seconds for stage in built if stage.hit)
    return [
        Tile(
            number(error["value"]),
            "operator, trajectory relative L2",
            f"±{SPACE}{number(error.get('standard_error'), 2)} standard error",
        ),
        _against_persistence(run),
        Tile(
            percent(coverage),
            "of the truth inside the 90\u202f% interval",
            f"diffusion, {calibration_of(coverage)}",
        ),
        Tile(
            duration(run.value("operator", "seconds_per_trajectory")),
            "per trajectory",
            f"operator, {run.convention('device')}, {_threads(run)}",
        ),
        Tile(
            duration(sum(stage.seconds for stage in built if not stage.hit)),
            "of work in this run",
            f"{duration(reused)} more reused from the cache" if reused else "nothing was in the cache",
        ),
    ]


def _against_persistence(run: RunDirectory) -> Tile:
    operator, persistence = run.value("operator", HEADLINE), run.value("persistence", HEADLINE)
    explained = "operator against “nothing changes”"
    if not (operator > 0 and persistence > 0):  # also where one is not a number
        return Tile(writing.DASH, "error against persistence", explained)
    ratio = persistence / operator
    word = "smaller" if ratio > 1 else "larger"
    return Tile(f"{number(max(ratio, 1 / ratio))}{SPACE}×", f"{word} error than persistence", explained)


def _threads(run: RunDirectory) -> str:
    threads = run.convention("threads")
    return f"{threads} thread" if threads == "1" else f"{threads} threads"


def _setup_rows(run: RunDirectory) -> list[tuple[str, list[str]]]:
    return [
        (label, [count(run.of_model(model, key)) for model in run.models]) for key, label in _SETUP.items()
    ]


def _ensembles(run: RunDirectory) -> list[str]:
    return [model for model in run.models if run.of_model(model, "n_members") > 1]


def _embedded(path: Path) -> str:
    """A figure as an address that holds it."""
    content = base64.b64encode(read_bytes(path)).decode()
    return f"data:{_MEDIA_TYPES[path.suffix[1:]]};base64,{content}"


def _markdown_cell(cell: Cell) -> str:
    text = f"{cell.text} {cell.error}".strip()
    return f"**{text}**" if cell.best else text


def _markdown_table(head: list[str], rows: list[list[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(cells)} |" for cells in lines]


def _escaped(text: str) -> str:
    """Text without meaning to Markdown or HTML."""
    plain = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|#~])", r"\\\1", plain)
