"""What a run's directory holds, read once; what is missing is an error, never a gap."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from ups.artifacts.files import read_json, storage_error
from ups.errors import IntegrityError
from ups.report.catalogue import entry

Record = Mapping[str, Any]


@dataclass(frozen=True)
class RunDirectory:
    """One finished run.

    Attributes:
        figures: directory of the evaluation's figures.
        curves: content of the evaluation's curves.json.
        records: of metrics.json, by model and metric, in the file's order.
    """

    path: Path
    configuration_text: str
    configuration: Mapping[str, Any]
    plan: Sequence[Mapping[str, Any]]
    artifacts: Mapping[str, Any]
    environment: Mapping[str, Any]
    records: Mapping[tuple[str, str], Record]
    curves: Mapping[str, Any]
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
        return cls(
            path=path,
            configuration_text=text,
            configuration=configuration,
            plan=_read(path / "plan.json"),
            artifacts=artifacts,
            environment=_read(path / "env.json"),
            records=_index(_read(path / "metrics.json"), where=str(path / "metrics.json")),
            curves=_read(evaluated / "curves.json"),
            figures=evaluated / "figures",
        )

    @property
    def name(self) -> str:
        """The configuration's name."""
        return str(entry(self.configuration, "name", where=str(self.path / "config.yaml")))

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

    @cached_property
    def models(self) -> list[str]:
        """In order of the records."""
        return list(dict.fromkeys(model for model, _ in self.records))

    @property
    def fields(self) -> list[str]:
        """Names of the physical fields."""
        return [str(name) for name in self.curve("names")]

    def record(self, model: str, metric: str) -> Record:
        """One record.

        Raises:
            IntegrityError: there is none.
        """
        try:
            return self.records[model, metric]
        except KeyError:
            raise IntegrityError(
                f"has no {metric!r} of {model!r}", where=str(self.path / "metrics.json")
            ) from None

    def value(self, model: str, metric: str) -> float:
        """The value of a record; NaN where it was not finite."""
        value = self.record(model, metric)["value"]
        return math.nan if value is None else value

    def of_model(self, model: str, key: str) -> Any:
        """What the records say of a model itself, such as its members."""
        first = next(record for (name, _), record in self.records.items() if name == model)
        return entry(first, key, where=str(self.path / "metrics.json"))

    def convention(self, key: str) -> str:
        """What the records say of how they were measured; all values where they differ."""
        where = str(self.path / "metrics.json")
        values = dict.fromkeys(
            json.dumps(entry(record, key, where=where)) for record in self.records.values()
        )
        return ", ".join(_plain(json.loads(value)) for value in values)

    def curve(self, *keys: str) -> Any:
        """What curves.json holds."""
        return entry(self.curves, *keys, where=str(self.figures.parent / "curves.json"))

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


def _index(records: Any, *, where: str) -> dict[tuple[str, str], Record]:
    indexed: dict[tuple[str, str], Record] = {}
    for record in records:
        key = entry(record, "model", where=where), entry(record, "metric", where=where)
        entry(record, "value", where=where)
        if key in indexed:
            raise IntegrityError(f"has two records of {key[1]!r} of {key[0]!r}", where=where)
        indexed[key] = record
    if not indexed:
        raise IntegrityError("has no records", where=where)
    return indexed


def _plain(value: Any) -> str:
    return " × ".join(map(str, value)) if isinstance(value, list) else str(value)
