"""The leaderboard: a line per finished run and problem, in one file that only grows.

What is compared has the same truth: a problem is the data's name with its parameters, the grid, the frames, the scored
fields and the sum of the test trajectories' bytes. Where PDEBench's metrics leave out other frames than ours, it is another
problem. Anything else about a run, be it its training data or its seed, is the run's own choice.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ups.artifacts.identity import digest_of
from ups.artifacts.journal import read_journal, sole_writer
from ups.artifacts.manifest import MANIFEST, Manifest
from ups.errors import ConfigurationError, IntegrityError
from ups.metric_labels import HEADLINE, frames_counted
from ups.pipeline.run_record import Number, Results, RunRecord, best_model, distance

LEADERBOARD = "leaderboard.jsonl"
"""Below the root."""
_WAIT_SECONDS = 60.0  # others add their rows within milliseconds
_OF_PROBLEM = (
    "dataset", "split", "n_trajectories", "resolution", "frames", "frames_skipped", "fields_scored",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A run on one problem.

    Attributes:
        problem: {"id", "name" in the run's configuration, what `_OF_PROBLEM` names, "test": sum of the test
            trajectories, "pdebench_frames_skipped": where they are not "frames_skipped"}.
        run: {"name", "configuration", "digest", "seed", "hardware", "commit", "uncommitted_changes", "command", "seconds",
            "seconds_from_scratch", "cost_usd", "cost_from_scratch_usd", "gates", "report"}; the report's path is
            relative to the root.
        results: of every model.
        added: UTC.
    """

    problem: Mapping[str, Any]
    run: Mapping[str, Any]
    results: Results
    added: str

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Row":
        """Raises:
        KeyError, TypeError: it is no row.
        """
        results = {
            model: {metric: Number(*number) for metric, number in numbers.items()}
            for model, numbers in values["results"].items()
        }
        return cls(values["problem"], values["run"], results, values["added"])

    def to_json(self) -> dict[str, Any]:
        results = {
            model: {metric: list(number) for metric, number in numbers.items()}
            for model, numbers in self.results.items()
        }
        return {"problem": self.problem, "run": self.run, "results": results, "added": self.added}


def add(runs: Iterable[Path], root: Path) -> list[Row]:
    """Add finished runs; what is there already is not added again.

    Returns: the rows that are new.

    Raises:
        ConfigurationError: a directory is no run, the run was not evaluated, or its data are gone; nothing was added.
        IntegrityError: what it points to is damaged; likewise.
        StorageError: a file cannot be read or written.
    """
    rows = [row for run in runs for row in rows_of(RunRecord.read(run), root)]
    added = []
    with sole_writer(root / LEADERBOARD, wait_seconds=_WAIT_SECONDS) as journal:
        for row in rows:
            values = row.to_json()
            if _lasting(values) not in [_lasting(known) for _, known in journal.records]:
                journal.append(values)
                added.append(row)
    return added


def _lasting(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key != "added"}


def rows_of(run: RunRecord, root: Path) -> list[Row]:
    """One per problem.

    Raises:
        ConfigurationError, IntegrityError, StorageError: see `add`.
    """
    if not run.table:
        raise ConfigurationError(
            "has no results: it was not evaluated", where=str(run.path), fix="finish it with `ups run`"
        )
    environment = run.environment
    machine = f"{environment['processor']}, {environment['cores']} cores"
    about = {
        "name": run.name,
        "configuration": run.configuration["name"],
        "digest": run.digest,
        "seed": run.configuration["seed"],
        "hardware": f"{machine}, {run.configuration['execution']['device']}",
        "commit": environment["commit"],
        "uncommitted_changes": environment["uncommitted_changes"],
        "command": environment["command"],
        "seconds": run.seconds,
        "seconds_from_scratch": run.seconds_from_scratch,
        "cost_usd": run.cost(run.seconds),
        "cost_from_scratch_usd": run.cost(run.seconds_from_scratch),
        "gates": run.verdict,
        "report": os.path.relpath((run.path / "report.html").resolve(), root.resolve()),
    }
    added = datetime.now(UTC).isoformat(timespec="seconds")
    problems = problems_of(run)
    return [
        Row(_by_convention(problems[name], run), about, results, added)
        for name, results in run.results.items()
    ]


def _by_convention(problem: dict[str, Any], run: RunRecord) -> dict[str, Any]:
    """A problem, another where PDEBench's metrics leave out other frames; the rest keep the ids of older lines."""
    skipped = next(
        (
            record["frames_skipped"]
            for record in run.table
            if record["problem"] == problem["name"] and record["metric"] == "pdebench_nrmse"
        ),
        problem["frames_skipped"],
    )
    if skipped == problem["frames_skipped"]:
        return problem
    other = {"pdebench_frames_skipped": skipped}
    return problem | other | {"id": digest_of({"problem": problem["id"]} | other)[:12]}


def problems_of(run: RunRecord) -> dict[str, dict[str, Any]]:
    """What each problem of an evaluated run is, by its name in the configuration.

    Raises:
        ConfigurationError: its trajectories are gone.
        IntegrityError: their manifest is damaged.
    """
    data = run.path / run.stages["download"]["path"] / MANIFEST
    try:
        parts = Manifest.read(data).parts
    except FileNotFoundError:
        raise ConfigurationError(
            "its trajectories are gone, and which they were is not known",
            where=str(data.parent.resolve()),
            fix="build them again with the run's command, which is in its env.json",
        ) from None
    found = {}
    for record in run.table:
        name = record["problem"]
        if name not in found:
            is_ = {key: record[key] for key in _OF_PROBLEM} | {
                "test": parts[f"{name}/{record['split']}"]["content"]
            }
            found[name] = {"id": digest_of(is_)[:12], "name": name} | is_
    return found


def title_of(problem: Mapping[str, Any]) -> str:
    """Of a problem, in words: "burgers1d nu=0.01: 64 test trajectories, 40 steps, 128 points (0123456789ab)"."""
    steps, points = problem["frames"] - problem["frames_skipped"], " x ".join(map(str, problem["resolution"]))
    skipped = problem.get("pdebench_frames_skipped")
    convention = "" if skipped is None else f"; in PDEBench's metrics {frames_counted(skipped)}"
    return (
        f"{problem['dataset']}: {problem['n_trajectories']} {problem['split']} trajectories, {steps} "
        f"{'step' if steps == 1 else 'steps'}, {points} points{convention} ({problem['id']})"
    )


def read(root: Path) -> list[Row]:
    """All rows.

    Raises:
        IntegrityError: a line is no row.
        StorageError: the file cannot be read.
    """
    path = root / LEADERBOARD
    last = {}
    for number, values in read_journal(path):
        try:
            row = Row.from_json(values)
        except (KeyError, TypeError) as error:
            raise IntegrityError(
                f"is no row of a leaderboard: {error!r}",
                where=f"{path}, line {number}",
                fix=f"take it out: sed -i {number}d {path}",
            ) from error
        # A run that was added again, after another scoring, is there twice.
        last[row.run["name"], row.problem["id"]] = row
    return list(last.values())


@dataclass(frozen=True)
class Place:
    """A run's place among those of a problem: its best model by a metric."""

    row: Row
    model: str
    number: Number


def ranked(rows: Iterable[Row], metric: str = HEADLINE, problem: str | None = None) -> list[list[Place]]:
    """Of each problem its runs, the champion first; runs whose models have no such value are left out.

    Args:
        problem: only those of this id, name or data.

    Raises:
        ConfigurationError: the metric ranks nothing, or there is no such problem.
    """
    target = distance(metric)
    by_problem: dict[str, list[Row]] = {}
    for row in rows:
        names = {row.problem["id"], row.problem["name"], row.problem["dataset"]}
        if problem is None or problem in names:
            by_problem.setdefault(row.problem["id"], []).append(row)
    if problem is not None and not by_problem:
        raise ConfigurationError(
            f"no run of {problem!r} is on the leaderboard",
            where="--problem",
            fix="`ups leaderboard show` shows all problems; `ups leaderboard add RUN` adds a run",
        )
    boards = []
    for own in by_problem.values():
        best = [(row, best_model(row.results, metric)) for row in own]
        places = [Place(row, *found) for row, found in best if found is not None]
        if places:
            # Who does not pass its gates is no champion.
            boards.append(
                sorted(places, key=lambda place: (place.row.run["gates"] == "failed", target(place.number)))
            )
    return boards
