"""The page of a run: one self-contained file, from what the run's directory points to.

Without torch and matplotlib: the figures are in the run's directory (see `ups.report.figure_cache`), and a page takes
a fraction of a second.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ups.errors import IntegrityError
from ups.metric_labels import COVERAGE, HEADLINE, METRICS, Metric, frames_counted
from ups.model_labels import MODELS, Model
from ups.report import catalogue, writing
from ups.report.catalogue import model_named
from ups.report.embedding import as_address
from ups.report.results import Cell, Row, measured_metrics, result_table
from ups.report.run_directory import ProblemResults, RunDirectory, read_bytes
from ups.report.template import render
from ups.report.verdict import Finding, calibration_of, verdict
from ups.report.writing import SPACE, count, duration, number, percent

_SETUP = {
    "n_members": "Members",
    "calls_per_step": "Network calls per step, of all members together",
    "calls_per_member": "Further network calls per member, for all steps together",
    "batch": "States advanced at a time",
}
_IN_SHORT = {metric.label for metric in METRICS if metric.name in {HEADLINE, "crps", COVERAGE}}
"""Columns of the short version; all others are in the page."""
_ISO_TIME = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d):\d\d\+00:00")
_CONVENTION = (
    "dataset", "data_version", "split", "n_trajectories", "frames", "resolution", "fields_scored",
    "seed", "device",
)  # fmt: skip
_TRIVIALLY = {
    "persistence": "nothing changes",
    "spatial_mean": "everything has mixed",
    "train_mean": "the mean of the train split",
}


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
        seconds_from_scratch: the same with all that it consists of, which yet another run may have made.
        share: of the longest stage, in per cent.
    """

    name: str
    hit: bool
    reason: str
    seconds: float
    seconds_from_scratch: float
    share: float
    digest: str
    result: str


@dataclass(frozen=True)
class Gate:
    """One number that a gate limits."""

    kind: str
    subject: str
    metric: str
    value: str
    limits: str
    passed: bool


@dataclass(frozen=True)
class Section:
    """What the page shows of one problem.

    Attributes:
        groups: rows of the result table, by group.
        setup: rows that say how each model was run.
        convention: what the records say of how they were measured.
        definitions: of the metrics that the problem has.
        members: of the ensembles, in words.
    """

    results: ProblemResults
    findings: list[Finding]
    tiles: list[Tile]
    models: list[Model]
    groups: dict[str, list[Row]]
    setup: list[tuple[str, list[str]]]
    convention: dict[str, str]
    definitions: list[Metric]
    threads: str
    members: str

    @property
    def figures(self) -> list[str]:
        """File names of its figures, in order."""
        results = self.results
        return catalogue.figures_of(
            results.axes,
            is_map=results.is_map,
            by_lead=catalogue.has_lead_times(results.records.values()),
            conditioned="conditioning" in results.curves,
        )


def html(run_directory: Path) -> str:
    """The page of a finished run.

    Raises:
        IntegrityError: something that it shows is missing; the message says what and where.
    """
    run = RunDirectory.read(run_directory)
    built = stages(run)
    sections = [_section(results) for results in run.problems]
    return render(
        "page.html",
        run=run,
        sections=sections,
        work=_work_tile(built),
        overview=_overview(sections),
        catalogue=catalogue,
        figure=lambda results, name: _embedded(results.figures / name),
        training=_embedded(run.figures / catalogue.TRAINING),
        stages=built,
        seconds_now=sum(stage.seconds for stage in built if not stage.hit),
        seconds_reused=sum(stage.seconds for stage in built if stage.hit),
        seconds_from_scratch=sum(stage.seconds_from_scratch for stage in built),
        rate=run.resources.hourly_rate_usd,
        cost=run.resources.cost,
        gates=gates(run),
        round_trip=_round_trip(run),
        reconstruction=_reconstruction(run),
    )


def markdown(run_directory: Path) -> str:
    """The short version: verdict, results, stages.

    Raises:
        IntegrityError: something that it shows is missing.
    """
    run = RunDirectory.read(run_directory)
    titles = ", ".join(results.convention("dataset") for results in run.problems)
    lines = [
        f"# {_escaped(f'{run.name}, {run.overrides}' if run.overrides else run.name)}",
        "",
        f"{_escaped(titles)} · {run.started:%Y-%m-%d %H:%M} UTC",
        "",
    ]
    for results in run.problems:
        if len(run.problems) > 1:
            lines += [f"## {_escaped(results.name)}: {_escaped(results.convention('dataset'))}", ""]
        lines += _markdown_results(results)
    if judged := gates(run):
        lines += _markdown_table(
            ["gate", "of", "", "value", "asked for", "verdict"],
            [
                [
                    g.kind,
                    g.subject,
                    _escaped(g.metric),
                    g.value,
                    g.limits,
                    "passed" if g.passed else "**failed**",
                ]
                for g in judged
            ],
        )
        lines.append("")
    lines += _markdown_table(
        ["stage", "cache", "time", "why"],
        [[s.name, "HIT" if s.hit else "MISS", duration(s.seconds), _escaped(s.reason)] for s in stages(run)],
    )
    return "\n".join(lines) + "\n"


def _markdown_results(results: ProblemResults) -> list[str]:
    first, *others = verdict(results)
    labels = [model_named(name).label for name in results.models]
    conventions = (
        f"{results.convention('n_trajectories')} {results.convention('split')} trajectories, "
        f"{_measured_on(results)}; decoded fields against the float32 source. "
        "Best value in bold, trivial forecasts aside."
    )
    picture = catalogue.figures_of(results.axes, is_map=results.is_map)[0]
    # A row for each model, and few columns: twelve models side by side are wider than a page of Prefect's.
    rows = [row for group in result_table(results).values() for row in group if row.label in _IN_SHORT]
    cells = zip(*(map(_markdown_cell, row.cells) for row in rows), strict=True)
    return [
        f"**{_escaped(first.text)}**",
        "",
        *(f"- {_escaped(finding.text)}" for finding in others),
        "",
        f"![Truth, forecasts and their errors]({catalogue.FIGURES}/{results.name}/{picture})",
        "",
        *_markdown_table(
            ["", *(row.label for row in rows)],
            [[label, *values] for label, values in zip(labels, cells, strict=True)],
        ),
        "",
        _escaped(conventions),
        "",
    ]


def _measured_on(results: ProblemResults) -> str:
    """Frames, points and fields that were scored, in words."""
    points, fields = results.convention("resolution"), ", ".join(results.fields)
    if results.is_map:
        return (
            f"the map from {' and '.join(results.given)} to {fields} at {points} points, in one application"
        )
    frames = f"{results.convention('frames')} frames of {points} points, first 1 given and not scored"
    return frames if len(results.fields) == 1 else f"{frames}, fields {fields}"


def _pdebench_frames(results: ProblemResults) -> str:
    """How PDEBench's metrics count frames, in words."""
    skipped = catalogue.entry(
        results.record("operator", "pdebench_nrmse"), "frames_skipped", where=str(results.metrics_file)
    )
    return frames_counted(skipped)


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
            # A run of an earlier version has not looked.
            seconds_from_scratch=run.stage(name).get("seconds_from_scratch", run.stage(name, "seconds")),
            share=round(100 * run.stage(name, "seconds") / longest, 1),
            digest=run.stage(name, "digest")[:12],
            result=_result(run.stage(name, "summary")),
        )
        for name, row in planned
    ]


def gates(run: RunDirectory) -> list[Gate]:
    """The verdicts of a run's gates, as they are shown.

    Raises:
        IntegrityError: a verdict lacks something.
    """
    return [_gate(row, where=str(run.path / "gates.json")) for row in run.gates]


def _gate(row: Mapping[str, Any], *, where: str) -> Gate:
    kind, subject, metric, problem, field, value, at_least, at_most, passed = (
        catalogue.entry(row, key, where=where)
        for key in (
            "kind", "subject", "metric", "problem", "field", "value", "at_least", "at_most", "passed",
        )
    )  # fmt: skip
    shown = next((known for known in METRICS if known.name == metric), None)
    limits = (("at least", at_least), ("at most", at_most))
    return Gate(
        kind,
        model_named(subject).label if kind == "test" else subject,
        ", ".join([shown.label if shown else _in_words(metric), *filter(None, (problem, field))]),
        number(value) if value is not None else "missing",
        " and ".join(f"{words} {limit:g}" for words, limit in limits if limit is not None),
        passed,
    )


def _reason(run: RunDirectory, name: str, planned: Mapping[str, Any]) -> str:
    """Why it was a hit or not, with the plan's prediction where that was another."""
    where = str(run.path / "plan.json")
    expected, because = (catalogue.entry(planned, key, where=where) for key in ("verdict", "reason"))
    reason = run.stage(name, "reason")
    if (expected == "HIT") != run.stage(name, "hit"):
        reason = f"{reason} (planned as {expected}: {because})"
    return _ISO_TIME.sub(r"\1 \2 UTC", reason)


def _result(summary: Mapping[str, Any]) -> str:
    """What a stage says of itself, in a few words."""
    parts = []
    if "problems" in summary:
        problems = summary["problems"].values()
        parts.append(f"{count(sum(_total(problem['trajectories']) for problem in problems))} trajectories")
    if "trajectories" in summary:
        parts.append(f"{count(_total(summary['trajectories']))} trajectories")
    if "parameters" in summary:
        parts.append(f"{count(summary['parameters'])} weights")
    parts.extend(
        f"{_in_words(key)} {number(summary[key])}"
        for key in ("validation_relative_l2", "validation_loss")
        if key in summary
    )
    return ", ".join(parts)


def _in_words(key: str) -> str:
    return key.replace("_", " ").replace("l2", "L2")


def _section(results: ProblemResults) -> Section:
    return Section(
        results=results,
        findings=verdict(results),
        tiles=_tiles(results),
        models=[model_named(name) for name in results.models],
        groups=result_table(results),
        setup=_setup_rows(results),
        convention={key: results.convention(key) for key in _CONVENTION}
        | {"measured": _measured_on(results), "pdebench": _pdebench_frames(results)},
        definitions=measured_metrics(results),
        threads=_threads(results),
        members=" or ".join(
            sorted({str(results.of_model(model, "n_members")) for model in results.ensembles})
        ),
    )


def _overview(sections: list[Section]) -> tuple[list[Model], list[tuple[Section, list[Cell]]]]:
    """The models of all problems, and the headline of each problem; empty cells where it has no such model."""
    models = [model for model in MODELS.values() if any(model in section.models for section in sections)]
    rows = []
    for section in sections:
        headline = next(iter(section.groups.values()))[0]
        cells = dict(zip((model.label for model in section.models), headline.cells, strict=True))
        rows.append((section, [cells.get(model.label, Cell("")) for model in models]))
    return models, rows


def _tiles(results: ProblemResults) -> list[Tile]:
    error = results.record("operator", HEADLINE)
    coverage = results.value("diffusion", COVERAGE)
    spread = f"±{SPACE}{number(error.get('standard_error'), 2)} standard error"
    if results.is_map:
        spread = f"median {number(results.value('operator', f'{HEADLINE}_median'))}, {spread}"
    return [
        Tile(
            number(error["value"]),
            "operator, relative L2" if results.is_map else "operator, trajectory relative L2",
            spread,
        ),
        _against_trivial(results),
        Tile(
            percent(coverage),
            "of the truth inside the 90\u202f% interval",
            f"diffusion, {calibration_of(coverage)}",
        ),
        Tile(
            duration(results.value("operator", "seconds_per_trajectory")),
            "per sample" if results.is_map else "per trajectory",
            f"operator, {results.convention('device')}, {_threads(results)}",
        ),
    ]


def _work_tile(built: list[Stage]) -> Tile:
    reused = sum(stage.seconds for stage in built if stage.hit)
    return Tile(
        duration(sum(stage.seconds for stage in built if not stage.hit)),
        "of work in this run",
        f"{duration(reused)} more reused from the cache" if reused else "nothing was in the cache",
    )


def _against_trivial(results: ProblemResults) -> Tile:
    name = results.trivial[0]
    operator, trivial = results.value("operator", HEADLINE), results.value(name, HEADLINE)
    label = model_named(name).label
    explained = f"operator against “{_TRIVIALLY[name]}”"
    if not (operator > 0 and trivial > 0):  # also where one is not a number
        return Tile(writing.DASH, f"error against {label}", explained)
    ratio = trivial / operator
    word = "smaller" if ratio > 1 else "larger"
    return Tile(f"{number(max(ratio, 1 / ratio))}{SPACE}×", f"{word} error than {label}", explained)


def _threads(results: ProblemResults) -> str:
    threads = results.convention("threads")
    return f"{threads} thread" if threads == "1" else f"{threads} threads"


def _setup_rows(results: ProblemResults) -> list[tuple[str, list[str]]]:
    return [
        (label, [count(results.of_model(model, key)) for model in results.models])
        for key, label in _SETUP.items()
    ]


def _reconstruction(run: RunDirectory) -> list[tuple[str, float]]:
    """Error of the autoencoder on validation fields, and of each problem where there are several."""
    name = "validation_relative_l2"
    summary = run.stage("autoencoder", "summary")
    whole = ("Encode and decode, validation fields", run.stage("autoencoder", "summary", name))
    by_problem = {
        key.partition("/")[2]: value for key, value in summary.items() if key.startswith(f"{name}/")
    }
    return [whole, *((f"Encode and decode, {problem}", value) for problem, value in by_problem.items())]


def _round_trip(run: RunDirectory) -> list[tuple[str, Mapping[str, float]]]:
    """Error of float16 for each array of the cache, and of each problem where there are several.

    Empty where nothing was stored, for latents are encoded batch by batch.
    """
    if not run.stage("cache_encode", "summary", "stored"):
        return []
    errors = run.stage("cache_encode", "summary", "float16_round_trip")
    return [
        (f"{problem}, {array}" if len(errors) > 1 else array, error)
        for problem, arrays in errors.items()
        for array, error in arrays.items()
    ]


def _total(counts: Any) -> int:
    """The sum of numbers by split, by problem, or both."""
    return sum(map(_total, counts.values())) if isinstance(counts, Mapping) else counts


def _embedded(path: Path) -> str:
    """A figure as an address that holds it."""
    return as_address(read_bytes(path), path.suffix[1:])


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
