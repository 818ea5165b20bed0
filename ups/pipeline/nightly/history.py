"""The history of a suite: a journal of nights, and of changes that somebody accepted.

A night: {"kind": "night", "suite", "date", "commit", "uncommitted_changes", "hardware", "libraries", "seconds", "measurements": {name:
{"repeats", "value"}}, "verdict": {name: "worse", "drifted", "better", "as before", "too few nights"}}.
An acceptance: {"kind": "accepted", "suite", "date", "measurements": [names], "reason"}.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ups.artifacts.journal import Journal
from ups.errors import ConfigurationError, IntegrityError
from ups.pipeline.nightly.judge import WORSE
from ups.pipeline.nightly.suite import Suite

Record = dict[str, Any]
_OF_A_NIGHT = ("suite", "date", "commit", "hardware", "libraries", "measurements", "verdict")


def records_of(journal: Journal, suite: Suite) -> list[Record]:
    """All records, oldest first.

    Raises:
        ConfigurationError: the file is the history of another suite.
        IntegrityError: a line is JSON and no record of a history.
    """
    for number, record in journal.records:
        where = f"{journal.path}, line {number}"
        if not _is_record(record):
            raise IntegrityError(
                "is no record of a nightly benchmark",
                where=where,
                fix=f"name the right file, or take the line out: sed -i {number}d {journal.path}",
            )
        if record["suite"] != suite.digest:
            raise ConfigurationError(
                f"is of suite {record['suite']}, and this is suite {suite.digest} ({suite.name}): their numbers cannot be compared",
                where=where,
                fix="give another --history; leave it out for the one of this suite",
            )
    return [record for _, record in journal.records]


def _is_record(record: Record) -> bool:
    if record.get("kind") == "accepted":
        return isinstance(record.get("measurements"), list) and "suite" in record
    return record.get("kind") == "night" and all(key in record for key in _OF_A_NIGHT)


def comparable_nights(records: Sequence[Record], hardware: Mapping[str, Any]) -> list[Record]:
    """Nights on this hardware, oldest first, as a later night is judged by them.

    Of an accepted measurement the nights since the change stay, as right ones, and those before it lose the measurement.
    """
    nights: list[Record] = []
    for record in records:
        if record["kind"] == "accepted":
            for name in record["measurements"]:
                nights = _accepted(nights, name)
        elif record["hardware"] == hardware:
            nights.append(record)
    return nights


def _accepted(nights: Sequence[Record], name: str) -> list[Record]:
    kept: list[Record] = []
    since_the_change = True
    for night in reversed(nights):
        since_the_change &= night["verdict"].get(name, "worse") in WORSE
        measurements, verdict = dict(night["measurements"]), dict(night["verdict"])
        if since_the_change:
            verdict.pop(name, None)
        else:
            measurements.pop(name, None)
        kept.append(night | {"measurements": measurements, "verdict": verdict})
    return kept[::-1]


def accept(journal: Journal, suite: Suite, names: Iterable[str], reason: str, date: str) -> None:
    """Note that what some measurements have become is wanted: later nights are compared with the nights since."""
    records_of(journal, suite)
    journal.append(
        {
            "kind": "accepted",
            "suite": suite.digest,
            "date": date,
            "measurements": list(names),
            "reason": reason,
        }
    )
