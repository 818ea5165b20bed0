"""What a run's directory holds, read once; what is missing is an error, never a gap."""

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from ups.artifacts.files import read_json, storage_error
from ups.config.schema import Resources
from ups.errors import IntegrityError
from ups.report.catalogue import FIGURES, entry, model_named

Record = Mapping[str, Any]


@dataclass(frozen=True)
class ProblemResults:
    """What the evaluation of a run says of one problem.

    Attributes:
        name: in the configuration.
        metrics_file, curves_file: where the numbers come from, for messages.
        records: by model, metric and field (None: all scored fields together), in the file's order.
        curves: its part of the evaluation's curves.json.
        figures: directory of its figures.
    """

    name: str
    metrics_file: Path
    curves_file: Path
    records: Mapping[tuple[str, str, str | None], Record]
    curves: Mapping[str, Any]
    figures: Path

    @cached_property
    def models(self) -> list[str]:
        """In order of the records."""
        return list(dict.fromkeys(model for model, _, _ in self.records))

    @cached_property
    def trivial(self) -> list[str]:
        """Models that need no training."""
        return [model for model in self.models if model_named(model).trivial]

    @cached_property
    def ensembles(self) -> list[str]:
        """Models of more than one member."""
        return [model for model in self.models if self.of_model(model, "n_members") > 1]

    @property
    def fields(self) -> list[str]:
        """Names of the fields that are scored."""
        first = next(iter(self.records.values()))
        return list(entry(first, "fields_scored", where=str(self.metrics_file)))

    @property
    def given(self) -> list[str]:
        """Names of the fields that are known beforehand."""
        return [field["name"] for field in self.curve("fields") if field["given"]]

    @property
    def is_map(self) -> bool:
        """No evolution: the operator is applied once."""
        return bool(self.curve("is_map"))

    @property
    def axes(self) -> int:
        """Space axes."""
        return len(self.curve("axes"))

    def record(self, model: str, metric: str, field: str | None = None) -> Record:
        """One record.

        Raises:
            IntegrityError: there is none.
        """
        try:
            return self.records[model, metric, field]
        except KeyError:
            named = repr(metric) if field is None else f"{metric!r} ({field})"
            raise IntegrityError(
                f"has no {named} of {model!r}, problem {self.name}", where=str(self.metrics_file)
            ) from None

    def value(self, model: str, metric: str) -> float:
        """The value of a record over all scored fields; NaN where it was not finite."""
        value = self.record(model, metric)["value"]
        return math.nan if value is None else value

    def of_model(self, model: str, key: str) -> Any:
        """What the records say of a model itself, such as its members."""
        first = next(record for (name, _, _), record in self.records.items() if name == model)
        return entry(first, key, where=str(self.metrics_file))

    def convention(self, key: str) -> str:
        """What the records say of how they were measured; all values where they differ."""
        where = str(self.metrics_file)
        values = dict.fromkeys(
            json.dumps(entry(record, key, where=where)) for record in self.records.values()
        )
        return ", ".join(_plain(json.loads(value)) for value in values)

    def curve(self, *keys: str) -> Any:
        """What curves.json holds of this problem."""
        return entry(self.curves, *keys, where=f"{self.curves_file}, {self.name}")


@dataclass(frozen=True)
class RunDirectory:
    """One finished run.

    Attributes:
        problems: results of each problem, in the order of the records.
        gates: verdicts of its gates; none where it has no gates.
        figures: directory of the figures of the run as a whole.
    """

    path: Path
    configuration_text: str
    configuration: Mapping[str, Any]
    plan: Sequence[Mapping[str, Any]]
    artifacts: Mapping[str, Any]
    environment: Mapping[str, Any]
    problems: Sequence[ProblemResults]
    gates: Sequence[Mapping[str, Any]]
    figures: Path

    @classmethod
    def read(cls, path: Path) -> "RunDirectory":
        """Read all but the figures.

        Raises:
            IntegrityError: a file or a key is missing or damaged.
            StorageError: a file cannot be read.
        """
        text = read_bytes(path / "config.yaml").decode(errors="replace")
        try:
            configuration = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise IntegrityError(f"is not YAML: {error}", where=str(path / "config.yaml")) from error
        artifacts = _read(path / "artifacts.json")
        pointer = entry(artifacts, "evaluate", "path", where=str(path / "artifacts.json"))
        evaluated = path / str(pointer)
        curves = _read(evaluated / "curves.json")
        indexed = _index(_read(path / "metrics.json"), where=str(path / "metrics.json"))
        return cls(
            path=path,
            configuration_text=text,
            configuration=configuration,
            plan=_read(path / "plan.json"),
            artifacts=artifacts,
            environment=_read(path / "env.json"),
            problems=[
                ProblemResults(
                    name=name,
                    metrics_file=path / "metrics.json",
                    curves_file=evaluated / "curves.json",
                    records=records,
                    curves=entry(curves, name, where=str(evaluated / "curves.json")),
                    figures=path / FIGURES / name,
                )
                for name, records in indexed.items()
            ],
            gates=_read(path / "gates.json") if any((configuration.get("gates") or {}).values()) else [],
            figures=path / FIGURES,
        )

    @property
    def resources(self) -> Resources:
        """What its machine costs."""
        return Resources.model_validate(self.configuration.get("resources") or {})

    @property
    def name(self) -> str:
        """The configuration's name."""
        return str(entry(self.configuration, "name", where=str(self.path / "config.yaml")))

    @property
    def overrides(self) -> str:
        """What its command set beside the configuration, as `a.b=c, d=e`.

        Raises:
            IntegrityError: the command is none.
        """
        try:
            words = shlex.split(str(self.setup("command")))
        except ValueError as error:
            raise IntegrityError(f"holds no command: {error}", where=str(self.path / "env.json")) from None
        return ", ".join(value for option, value in pairwise(words) if option == "--set")

    @property
    def started(self) -> datetime:
        """From the directory's name, `<UTC time>-<name>-<digest>`.

        Raises:
            IntegrityError: it has another name.
        """
        try:
            stamp = datetime.strptime(self.path.name.partition("-")[0], "%Y%m%dT%H%M%SZ")
        except ValueError:
            raise IntegrityError(
                "a run's directory is named <UTC time>-<name>-<digest>", where=str(self.path)
            ) from None
        return stamp.replace(tzinfo=UTC)

    def stage(self, name: str, *keys: str) -> Any:
        """What artifacts.json says of a stage."""
        return entry(self.artifacts, name, *keys, where=str(self.path / "artifacts.json"))

    def setup(self, key: str) -> Any:
        """What env.json says."""
        return entry(self.environment, key, where=str(self.path / "env.json"))


def read_bytes(path: Path) -> bytes:
    """All bytes of a file of a run.

    Raises:
        IntegrityError: it is not there.
        StorageError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise IntegrityError(
            "is missing",
            where=str(path),
            fix="run the same configuration again; what is intact is not redone",
        ) from None
    except OSError as error:
        raise storage_error(error, path) from error


def _read(path: Path) -> Any:
    read_bytes(path)  # for its error where there is no file
    return read_json(path)


def _index(records: Any, *, where: str) -> dict[str, dict[tuple[str, str, str | None], Record]]:
    """Records by problem, then by model, metric and field."""
    indexed: dict[str, dict[tuple[str, str, str | None], Record]] = {}
    for record in records:
        problem, model, metric, field, _ = (
            entry(record, key, where=where) for key in ("problem", "model", "metric", "field", "value")
        )
        of_problem = indexed.setdefault(problem, {})
        if (model, metric, field) in of_problem:
            raise IntegrityError(
                f"has two records of {metric!r} of {model!r}, problem {problem}", where=where
            )
        of_problem[model, metric, field] = record
    if not indexed:
        raise IntegrityError("has no records", where=where)
    return indexed


def _plain(value: Any) -> str:
    return " × ".join(map(str, value)) if isinstance(value, list) else str(value)
