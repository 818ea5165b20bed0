"""A sweep: its members, what is left to do, and who came where.

How far a member is, its artifacts and checkpoints tell, whoever trained it. The journal below `sweeps/` has only what these do not
tell: which members were ended early or failed, and why. So a sweep that was broken off in whatever way goes on where it was.
"""

import math
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ups.artifacts import Artifact, Store
from ups.artifacts.files import read_json, read_records
from ups.artifacts.identity import digest_of
from ups.artifacts.journal import Journal, read_journal, sole_writer
from ups.artifacts.store import BusyError
from ups.config.data import how_read
from ups.config.schema import CHANGE_NO_RESULT, STAGES
from ups.config.sweep import Member, load_sweep, value_text
from ups.config.training import Training
from ups.errors import ConfigurationError, PreflightError, StageError
from ups.metric_labels import HEADLINE
from ups.pipeline.device import resolve
from ups.pipeline.intervals import half_width
from ups.pipeline.plan import PlannedStage, derive_parts, make_plan
from ups.pipeline.run import RUNS, command_line, find_root
from ups.pipeline.run_record import Number
from ups.pipeline.sweeps.early_stopping import Curve, is_behind, lowest, promoted
from ups.pipeline.training_records import paces, validations

SWEEPS, JOURNAL, REPORT = "sweeps", "journal.jsonl", "report.html"
BEGUN, STARTED, ENDED = "begun", "started", "ended"
PAUSED, STOPPED, DIVERGED, CRASHED, FAILED = "paused", "stopped", "diverged", "crashed", "failed"
"""Events of the journal: of the sweep, and of its members. Who has ended with a message has missed a gate."""
NOT_PASSED = "not passed"
"""State of a member that has missed a gate before its last stage."""
_WAIT_SECONDS = 5.0
"""Who only asks whether a sweep is running has the journal's lock for a moment."""
_OVER = {STOPPED, DIVERGED, FAILED}


@dataclass(frozen=True)
class Leg:
    """What a member does without a break.

    Attributes:
        until: last stage; None: the whole chain.
        pause: step of the training that ranks, at whose validation it waits for the others; None: it does not.
    """

    member: Member
    until: str | None
    pause: int | None = None


RunLegs = Callable[["SweepRun", list[Leg]], None]
"""Brings legs to their ends: here, or on workers."""


class SweepRun:
    """A sweep below a root.

    Raises:
        ConfigurationError: the file or a member is wrong.
    """

    def __init__(self, file: Path, root: str | Path | None) -> None:
        self.file = file
        self.sweep, self.members = load_sweep(file)
        self.store = Store(find_root(root))
        self.configurations = {member.name: resolve(member.configuration) for member in self.members}
        self.digest = digest_of(
            {
                "members": {
                    member.name: member.configuration.model_dump(
                        mode="json", exclude={"name", *CHANGE_NO_RESULT}
                    )
                    for member in self.members
                },
                # Finalists may be more later: what was trained and ended stays as it is.
                "rules": self.sweep.model_dump(mode="json", include={"rank_by", "until", "stop"}),
            }
        )
        self.name = f"{file.stem}-{self.digest[:12]}"
        self.directory = self.store.root / SWEEPS / self.name
        self._keys: dict[str, str] = {}
        self._journal: Journal | None = None

    def plan(self) -> dict[str, list[PlannedStage]]:
        """Of every member, up to the last stage that all have.

        Raises:
            DataError: an input file is missing.
            ConfigurationError: errors of members would not compare.
        """
        first, *_ = self.members
        expected = self._validated_on(first)
        for member in self.members:
            if self._validated_on(member) != expected:
                raise ConfigurationError(
                    f"{member.name!r} validates on other trajectories than {first.name!r}, and their errors do not compare",
                    where=f"{self.file}: {', '.join(self.sweep.keys)}",
                    fix="vary nothing of the validation split: neither its trajectories, nor its points and frames",
                )
        return {
            member.name: make_plan(self.configurations[member.name], self.store, self.sweep.last)
            for member in self.members
        }

    def _validated_on(self, member: Member) -> Any:
        configuration = self.configurations[member.name]
        parts = derive_parts(configuration, self.store)
        return {
            name: [how_read(data), parts[name]["validation"]] for name, data in configuration.problems.items()
        }

    def conduct(self, run_legs: RunLegs) -> None:
        """Do all that is left.

        Raises:
            PreflightError: another process does.
            UpsError: what would end every member.
        """
        with sole_writer(self.directory / JOURNAL, wait_seconds=_WAIT_SECONDS) as self._journal:
            self.note(BEGUN)
            for legs in self._rounds():
                if legs:
                    run_legs(self, legs)

    def require_done(self) -> None:
        """Check that no member failed; one whose loss was not finite is ranked last, and did not fail.

        Raises:
            StageError: members did, or have been trained where this root does not see it; the others are done.
        """
        events = self._events()
        ended = {name for name, event in events.items() if event["event"] == ENDED and "message" not in event}
        elsewhere = [
            member.name for member in self.members if member.name in ended and not self._is_done(member)
        ]
        if elsewhere:
            raise StageError(
                f"{len(elsewhere)} of {len(self.members)} members have ended, and {self.store.root} has not what they "
                f"trained: {', '.join(elsewhere)}",
                where=str(self.file),
                fix="have all workers use this root: UPS_ROOT of a worker; then repeat the sweep",
            )
        failed = [name for name, event in events.items() if event["event"] == FAILED]
        if failed:
            raise StageError(
                f"{len(failed)} of {len(self.members)} members failed: {', '.join(failed)}",
                where=str(self.file),
                fix="`ups sweep status` says why; the same command tries them again",
            )

    def is_running(self) -> bool:
        """Whether a process conducts it: who was killed holds no lock."""
        if not self.directory.is_dir():
            return False
        try:
            with sole_writer(self.directory / JOURNAL):
                return False
        except PreflightError:
            return True

    def _rounds(self) -> Iterator[list[Leg]]:
        """The legs that are left, of one round after the other; of each when those before are done."""
        going, last = self.members, self.sweep.last
        stop = self.sweep.stop
        if stop is not None and stop.successive_halving is not None:
            rule = stop.successive_halving
            for step in rule.steps(min(self._steps(member) for member in self.members)):
                yield [
                    Leg(member, last, step) for member in self._open(going) if self._at(member, step) is None
                ]
                going = self._promoted(going, step, rule.factor)
        yield [Leg(member, last) for member in self._open(going)]
        best = [row["name"] for row in self.ranking() if row["state"] in {"trained", "finished"}]
        chosen = best[: self.sweep.finalists]
        yield [
            Leg(member, None)
            for member in self.members
            if member.configuration_name in chosen and self._evaluation(member) is None
        ]

    def _open(self, members: list[Member]) -> list[Member]:
        """Those that are neither done nor ended."""
        events = self._events()
        return [
            member
            for member in members
            if events.get(member.name, {}).get("event") not in _OVER and not self._is_done(member)
        ]

    def _is_done(self, member: Member) -> bool:
        plan = make_plan(self.configurations[member.name], self.store, self.sweep.last)
        return all(stage.verdict == "HIT" for stage in plan)

    def _promoted(self, going: list[Member], step: int, factor: int) -> list[Member]:
        """The best configurations at a step, by their means over seeds; the others are ended, and the journal says so."""
        errors: dict[str, list[float]] = {}
        for member in going:
            error = self._at(member, step)
            errors.setdefault(member.configuration_name, []).append(math.inf if error is None else error)
        means = {name: statistics.fmean(values) for name, values in errors.items()}
        best = promoted(means, factor)
        events = self._events()
        for member in going:
            if (
                member.configuration_name not in best
                and events.get(member.name, {}).get("event") not in _OVER
            ):
                self.note(
                    STOPPED, member, step=step, message=f"not among the best {len(best)} at step {step}"
                )
        return [member for member in going if member.configuration_name in best]

    def _at(self, member: Member, step: int) -> float | None:
        """The lowest error up to a step; of a training that ended before by itself, of all."""
        curve = self.curve(member)
        sealed = self._ranked(member)[1] is not None
        return lowest(curve, min(step, curve[-1][0]) if curve and sealed else step)

    def verdict(self, leg: Leg) -> tuple[str, int, str] | None:
        """PAUSED or STOPPED, at which step and why, for a training that is not to go on from its newest validation."""
        if leg.until is None:
            return None
        curve, stop = self.curve(leg.member), self.sweep.stop
        if not curve or curve[-1][0] >= self._steps(leg.member):
            return None
        step = curve[-1][0]
        if leg.pause is not None and step >= leg.pause:
            return PAUSED, step, "waits for the others"
        if stop is not None and stop.median is not None:
            others = (self.curve(member) for member in self.members if member is not leg.member)
            if is_behind(curve, others, stop.median):
                return STOPPED, step, f"above the median of the others at step {step}"
        return None

    def curve(self, member: Member) -> Curve:
        """Steps and validation errors of the training that ranks, so far."""
        return validations(self._records(member))

    def _records(self, member: Member) -> list[dict[str, Any]]:
        key, artifact = self._ranked(member)
        if key is None:
            return []
        place = self.store.work(self.sweep.rank_by, key) / "output" if artifact is None else artifact.path
        return read_records(place / "logs" / "metrics.jsonl")

    def _ranked(self, member: Member) -> tuple[str | None, Artifact | None]:
        """Key of the training that ranks, as soon as its inputs are there, and its artifact once it is sealed."""
        if member.name not in self._keys:
            plan = make_plan(self.configurations[member.name], self.store, self.sweep.rank_by)
            if plan[-1].digest is None:
                return None, None
            self._keys[member.name] = plan[-1].digest
        key = self._keys[member.name]
        return key, self.store.find(self.sweep.rank_by, key)

    def _steps(self, member: Member) -> int:
        return self._settings(member).steps

    def _settings(self, member: Member) -> Training:
        return STAGES[self.sweep.rank_by].own(self.configurations[member.name])

    def note(self, event: str, member: Member | None = None, **more: Any) -> None:
        """Add to the journal; for who conducts the sweep."""
        who = {} if member is None else {"member": member.name}
        when = datetime.now(UTC).isoformat(timespec="seconds")
        assert self._journal is not None, "the journal is written under its lock"
        self._journal.append({"time": when, "event": event} | who | more)

    def launches(self, member: Member) -> int:
        """How often a member has come to some end: numbers its launches, also for who goes on after a crash."""
        ends = {ENDED, PAUSED, STOPPED, DIVERGED, CRASHED, FAILED}
        records = (record for _, record in read_journal(self.directory / JOURNAL))
        return sum(record.get("member") == member.name and record["event"] in ends for record in records)

    def newest_event(self, member: Member) -> str | None:
        """Of the journal's, since the last start."""
        event = self._events().get(member.name)
        return None if event is None else event["event"]

    def _events(self) -> dict[str, dict[str, Any]]:
        """The newest event of each member; what failed before the last start is tried again."""
        found: dict[str, dict[str, Any]] = {}
        for _, record in read_journal(self.directory / JOURNAL):
            if record["event"] == BEGUN:
                found = {name: event for name, event in found.items() if event["event"] != FAILED}
            else:
                found[record["member"]] = record
        return found

    def standings(self) -> list[dict[str, Any]]:
        """A record per member: how far it is, and what it is worth so far."""
        events = self._events()
        return [self._standing(member, events.get(member.name)) for member in self.members]

    def _standing(self, member: Member, event: dict[str, Any] | None) -> dict[str, Any]:
        records = self._records(member)
        curve, steps = validations(records), self._steps(member)
        _, artifact = self._ranked(member)
        error = None
        if curve:
            best = min(error for _, error in curve)
            error = best if artifact is None or self._settings(member).publish == "best" else curve[-1][1]
        taken = paces(records)
        seconds = artifact.manifest.seconds if artifact else taken[-1].seconds if taken else None
        evaluation = self._evaluation(member)
        return {
            "name": member.name,
            "configuration": member.configuration_name,
            "varied": {key: value_text(value) for key, value in member.varied.items()},
            "state": self._state(member, event, begun=bool(records)),
            "message": "" if event is None else event.get("message", ""),
            "step": curve[-1][0] if curve else 0,
            "steps": steps,
            "error": error if error is not None and math.isfinite(error) else None,
            "curve": [[step, value if math.isfinite(value) else None] for step, value in curve],
            "seconds": seconds,
            "cost_usd": None if seconds is None else member.configuration.resources.cost(seconds),
            "test": {} if evaluation is None else _test_errors(evaluation),
            "report": None if evaluation is None else self._report(member),
            "command": command_line(member.config, member.overrides, self.sweep.last),
        }

    def _state(self, member: Member, event: dict[str, Any] | None, *, begun: bool) -> str:
        if self._evaluation(member) is not None:
            return "finished"
        what = None if event is None else event["event"]
        if what in {DIVERGED, FAILED}:
            return str(what)
        if self._is_done(member):
            return "trained"
        if what == STOPPED:
            return STOPPED
        if event is not None and what == ENDED and "message" in event:
            return NOT_PASSED
        key, _ = self._ranked(member)
        if key is not None:
            try:
                with self.store.lock(self.sweep.rank_by, key, timeout=0):
                    pass
            except BusyError:
                return "running"
        return "begun" if begun else "waiting"

    def _evaluation(self, member: Member) -> Artifact | None:
        plan = make_plan(self.configurations[member.name], self.store)
        if plan[-1].digest is None or any(stage.verdict == "MISS" for stage in plan):
            return None
        return self.store.find("evaluate", plan[-1].digest)

    def _report(self, member: Member) -> str | None:
        """Of the newest run of a member: its directory has the configuration's digest in its name."""
        configuration = self.configurations[member.name]
        digest = digest_of(configuration.model_dump(mode="json"))[:8]
        found = (self.store.root / RUNS).glob(f"*-{configuration.name}-{digest}/report.html")
        return max((str(path) for path in found), default=None)

    def ranking(self) -> list[dict[str, Any]]:
        """A record per configuration, the best first; whoever was ended early is behind all that were not.

        Intervals are 95 %: of several seeds over these, by Student's t; else of test errors over trajectories.
        """
        groups: dict[str, list[dict[str, Any]]] = {}
        for standing in self.standings():
            groups.setdefault(standing["configuration"], []).append(standing)
        rows = [_row(name, standings) for name, standings in groups.items()]
        rows.sort(key=_place)
        return rows


def _row(name: str, standings: list[dict[str, Any]]) -> dict[str, Any]:
    first = standings[0]
    errors = [standing["error"] for standing in standings]
    known = [error for error in errors if error is not None]
    states = dict.fromkeys(standing["state"] for standing in standings)
    complete = len(known) == len(errors)
    seconds = [standing["seconds"] for standing in standings if standing["seconds"] is not None]
    costs = [standing["cost_usd"] for standing in standings if standing["cost_usd"] is not None]
    return {
        "name": name,
        "varied": first["varied"],
        "state": next(iter(states)) if len(states) == 1 else "/".join(states),
        "seeds": len(standings),
        "error": statistics.fmean(known) if known and complete else None,
        "half_width": half_width(known) if len(known) > 1 and complete else None,
        "step": min(standing["step"] for standing in standings),
        "steps": max(standing["steps"] for standing in standings),
        "seconds": sum(seconds) if seconds else None,
        "cost_usd": sum(costs) if costs else None,
        "test": _over_seeds([standing["test"] for standing in standings]),
        "reports": [standing["report"] for standing in standings if standing["report"]],
        "command": first["command"],
        "message": "; ".join(dict.fromkeys(s["message"] for s in standings if s["message"])),
        "curves": [standing["curve"] for standing in standings],
    }


def _place(row: dict[str, Any]) -> tuple[bool, int, float]:
    done = row["state"] in {"trained", "finished"}
    return not done, 0 if done else -row["step"], math.inf if row["error"] is None else row["error"]


def _test_errors(evaluation: Artifact) -> dict[str, tuple[float | None, float | None]]:
    """By problem, the operator's error on the test split, and half of its 95 % interval over trajectories."""
    numbers = {
        record["problem"]: Number.of(record)
        for record in read_json(evaluation.path / "metrics.json")
        if (record["model"], record["metric"], record["field"]) == ("operator", HEADLINE, None)
    }
    return {
        problem: (value, None if value is None or high is None else high - value)
        for problem, (value, _, high) in numbers.items()
    }


def _over_seeds(tests: list[dict[str, Any]]) -> dict[str, Any]:
    if not all(tests) or len(tests) == 1:
        return tests[0] if all(tests) else {}
    found = {}
    for problem in tests[0]:
        values = [test[problem][0] for test in tests]
        finite = all(value is not None for value in values)
        found[problem] = (statistics.fmean(values), half_width(values)) if finite else (None, None)
    return found
