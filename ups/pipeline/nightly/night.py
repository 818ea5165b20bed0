"""One night: measure, compare with the nights before, add to the history."""

import statistics
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ups.artifacts.journal import sole_writer
from ups.errors import RegressionError
from ups.pipeline.compile_cache import compile_cache
from ups.pipeline.nightly.history import Record, comparable_nights, records_of
from ups.pipeline.nightly.judge import Judgement, judge
from ups.pipeline.nightly.suite import Suite, measurements_of
from ups.pipeline.provenance import environment, git
from ups.pipeline.run import Run, find_root, run_all
from ups.pipeline.tool_process import run_tool

Output = Callable[[str], None]
Values = dict[str, list[float]]
NIGHTLY = "nightly"
"""Directory of histories and their reports, below the root."""
_MOST_COMMITS, _COMMITS_OF_A_SENTENCE = 20, 3


@dataclass(frozen=True)
class Change:
    """What came between the last right night and this one.

    Attributes:
        date: of the last right night.
        commits: "hash subject", newest first.
        others: what else is known to have changed: libraries, uncommitted changes, commits that are not shown.
    """

    date: str
    commits: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        listed = self.commits[:_COMMITS_OF_A_SENTENCE]
        left = len(self.commits) - len(listed)
        words = [*listed, *([f"and {left} commits before"] if left else []), *self.others]
        return "; ".join(words) or "the same commit"


@dataclass(frozen=True)
class NightResult:
    """A night that was measured and judged.

    Attributes:
        record: the line of the history.
        before: nights that it was compared with, oldest first.
        changes: by the measurements that are worse.
    """

    suite: Suite
    history: Path
    record: Record
    before: list[Record]
    judgements: list[Judgement]
    changes: dict[str, Change]

    @property
    def regressions(self) -> list[str]:
        """What is worse, in a sentence each."""
        return [self._sentence(judgement) for judgement in self.judgements if judgement.worse]

    def require_no_regression(self) -> None:
        """Raises:
        RegressionError: something is worse.
        """
        if self.regressions:
            raise RegressionError(
                "\n  ".join(self.regressions),
                where="nightly benchmark",
                fix="repair it, or accept it: ups bench nightly --accept NAME --because REASON",
            )

    def _sentence(self, judgement: Judgement) -> str:
        assert judgement.change is not None
        assert judgement.expected is not None
        size = f"{judgement.change:.1%} more"
        change = self.changes[judgement.name]
        came_between = f"since {change.date[:10]}: {change}"
        if judgement.status == "drifted":
            return (
                f"{judgement.name} has drifted: {size} in the last nights than {judgement.expected:.4g}, the median of the "
                f"first {judgement.nights}; {came_between}"
            )
        return (
            f"{judgement.name} is {judgement.value:.4g}, {size} than {judgement.expected:.4g}, the median of "
            f"{judgement.nights} nights; {came_between}"
        )


def default_history(suite: Suite, root: str | Path | None) -> Path:
    """Below the root; a suite that changed has another."""
    return find_root(root) / NIGHTLY / f"{suite.name}-{suite.digest}.jsonl"


def run_night(
    suite: Suite,
    history: Path,
    *,
    root: str | Path | None,
    on_line: Output,
    only: Collection[str] = (),
    further: Mapping[str, Sequence[float]] | None = None,
) -> NightResult:
    """Measure everything in turns, several times round; compare; add the record to the history.

    What looks worse is measured again, as often, and counts as worse only if it still is by all repeats together.

    Args:
        only: names of sections; empty: all.
        further: repeats of what this library cannot measure itself, by measurement; not measured again.

    Raises:
        ConfigurationError, IntegrityError: see `records_of`.
        PreflightError: another night is being measured.
        UpsError: of what is measured.
    """
    started = time.monotonic()
    with sole_writer(history) as journal:
        records = records_of(journal, suite)
        suite_run = _data(suite, root, on_line)
        asked = {name: settings for name, settings in suite.sections.items() if not only or name in only}
        device, values = _measure(suite, suite_run, asked, on_line)
        values |= {name: list(taken) for name, taken in (further or {}).items()}
        about = environment()
        hardware = _hardware(about, suite_run, device)
        before = comparable_nights(records, hardware)
        judgements = _judge(values, before)
        again = {
            measurement.section
            for measurement in measurements_of(j.name for j in judgements if j.status == "worse")
        }
        again &= asked.keys()
        if again:
            on_line(f"worse than the nights before, and so measured again: {', '.join(sorted(again))}")
            chosen = {name: settings for name, settings in asked.items() if name in again}
            _, repeated = _measure(suite, suite_run, chosen, on_line)
            values = {name: taken + repeated.get(name, []) for name, taken in values.items()}
            judgements = _judge(values, before)
        record: Record = {
            "kind": "night",
            "suite": suite.digest,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "commit": about["commit"],
            "uncommitted_changes": about["uncommitted_changes"],
            "hardware": hardware,
            "libraries": about["libraries"],
            "seconds": round(time.monotonic() - started, 1),
            "measurements": {
                name: {"repeats": taken, "value": statistics.median(taken)} for name, taken in values.items()
            },
            "verdict": {judgement.name: judgement.status for judgement in judgements},
        }
        journal.append(record)
    changes = {j.name: _change(before[j.since], record) for j in judgements if j.since is not None}
    return NightResult(suite, history, record, before, judgements, changes)


def _data(suite: Suite, root: str | Path | None, on_line: Output) -> Run:
    """The suite's own trajectories, sealed."""
    run = Run.start(suite.configuration, {"tracking.wandb": "disabled"}, root=root, until="download")
    run_all(run, on_line=on_line, on_stage=lambda _name, _built: None, until="download")
    return run


def _measure(
    suite: Suite, run: Run, sections: Mapping[str, Mapping[str, Any]], on_line: Output
) -> tuple[str, Values]:
    """Name of the device, and all repeats by measurement; each repeat is a process of its own, with a seed of its own."""
    artifacts = run.store.artifacts
    place = artifacts / ".work"
    device, values = "", {}
    for repeat in range(suite.repeats):
        on_line(f"repeat {repeat + 1} of {suite.repeats}")
        found = run_tool(
            "ups.benchmarks",
            {
                "subject": "night",
                "directory": str(place),
                "configuration": run.configuration.model_dump(mode="json") | {"seed": repeat},
                "download": str(run.built["download"].artifact.path),
                "sections": sections,
            },
            place=place,
            threads=run.configuration.execution.threads,
            on_line=on_line,
            environment=compile_cache(artifacts),
        )
        device = found["device"]
        for name, value in found["values"].items():
            values.setdefault(name, []).append(value)
    return device, values


def _judge(values: Values, before: list[Record]) -> list[Judgement]:
    return [
        judge(measurement, statistics.median(values[measurement.name]), before)
        for measurement in measurements_of(values)
    ]


def _hardware(about: Record, run: Run, device: str) -> dict[str, Any]:
    """What must be equal for nights to be compared."""
    machine = {name: about[name] for name in ("processor", "cores")}
    return machine | {"device": device, "threads": run.configuration.execution.threads}


def _change(right: Record, now: Record) -> Change:
    """What came between two nights."""
    commits, others = [], []
    if right["commit"] != now["commit"]:
        listed = git("log", "--oneline", "--no-decorate", f"{right['commit']}..{now['commit']}")
        if listed is None:
            others.append(f"commits {right['commit']} to {now['commit']}, which this checkout does not have")
        else:
            commits = listed.splitlines()
            if len(commits) > _MOST_COMMITS:
                others.append(f"and {len(commits) - _MOST_COMMITS} older commits")
    for name, version in now["libraries"].items():
        if right["libraries"].get(name) != version:
            others.append(f"{name} {right['libraries'].get(name)} became {version}")
    if now["uncommitted_changes"]:
        others.append("uncommitted changes")
    return Change(right["date"], commits[:_MOST_COMMITS], others)
