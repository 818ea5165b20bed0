"""What a run found, held against its gates. A number that is missing, or not finite, does not pass."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ups.config.gates import Gate, Gates
from ups.errors import GateError

Kind = Literal["validation", "test"]

_VALIDATION_ERRORS = ("validation_relative_l2", "validation_loss")
"""A training has one of them: of decoded fields, or of what it learns."""


@dataclass(frozen=True)
class Verdict:
    """One number and its limits.

    Attributes:
        subject: the training, or the model.
        problem: its name; None: the mean over all that there are.
        field: None: over all scored fields.
        value: None where it is missing or not finite.
    """

    kind: Kind
    subject: str
    metric: str
    problem: str | None
    field: str | None
    value: float | None
    at_most: float | None
    at_least: float | None
    passed: bool

    @property
    def what(self) -> str:
        """For example "operator mass_drift of burgers1d"."""
        of = "".join(f" of {name}" for name in (self.field, self.problem) if name is not None)
        return f"{self.subject} {self.metric}{of}"

    @property
    def limits(self) -> str:
        """In words."""
        limits = (("at least", self.at_least), ("at most", self.at_most))
        return " and ".join(f"{words} {limit:g}" for words, limit in limits if limit is not None)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def judge_trainings(gates: Gates, summaries: Mapping[str, Mapping[str, Any]]) -> list[Verdict]:
    """summaries: of the stages, by their names; with several problems a training tells the error of each beside the mean."""
    verdicts = []
    for gate in gates.validation:
        summary = summaries.get(gate.stage, {})
        metric = next((name for name in _VALIDATION_ERRORS if name in summary), "validation error")
        # Of a single problem, the mean is its own.
        alone = not any(key.startswith(f"{metric}/") for key in summary)
        key = metric if gate.problem is None or alone else f"{metric}/{gate.problem}"
        verdicts.append(
            _verdict("validation", gate, gate.stage, metric, gate.problem, None, summary.get(key))
        )
    return verdicts


def judge_results(gates: Gates, records: Sequence[Mapping[str, Any]]) -> list[Verdict]:
    """records: of metrics.json."""
    verdicts = []
    for gate in gates.test:
        problems = [gate.problem] if gate.problem else dict.fromkeys(record["problem"] for record in records)
        for problem in problems:
            found = {
                record["field"]: record["value"]
                for record in records
                if (record["problem"], record["model"], record["metric"])
                == (problem, gate.model, gate.metric)
            }
            over_fields = {None: found.get(None)} if None in found or not found else found
            verdicts += [
                _verdict("test", gate, gate.model, gate.metric, problem, field, value)
                for field, value in over_fields.items()
            ]
    return verdicts


def _verdict(
    kind: Kind,
    gate: Gate,
    subject: str,
    metric: str,
    problem: str | None,
    field: str | None,
    value: float | None,
) -> Verdict:
    passed = (
        value is not None
        and (gate.at_most is None or value <= gate.at_most)
        and (gate.at_least is None or value >= gate.at_least)
    )
    return Verdict(kind, subject, metric, problem, field, value, gate.at_most, gate.at_least, passed)


def require_passed(verdicts: Iterable[Verdict]) -> None:
    """Raises:
    GateError: names every number that does not pass.
    """
    failed = [
        f"{verdict.what} is {'missing' if verdict.value is None else f'{verdict.value:.4g}'}, not {verdict.limits}"
        for verdict in verdicts
        if not verdict.passed
    ]
    if failed:
        raise GateError("; ".join(failed), where="gates")
