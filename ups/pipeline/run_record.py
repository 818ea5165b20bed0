"""What the directory of a run says of it, whether it goes on, has ended, or was killed."""

import fcntl
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml

from ups.artifacts.files import read_json
from ups.artifacts.identity import digest_of
from ups.config.load import parse_value
from ups.config.schema import Resources
from ups.errors import ConfigurationError, IntegrityError
from ups.metric_labels import HEADLINE, METRICS
from ups.model_labels import MODELS
from ups.pipeline.run import ARTIFACTS, ENDED, GATES, LOCK, PLAN

State = Literal["running", "finished", "failed", "interrupted"]
_KILLED = "its process ended without a word"
_NORMAL = 1.96
"""0.975 quantile: the 95 % interval of a mean, in its standard errors."""

# libyaml, where PyYAML has it, reads six times as fast: of many runs, most of the time.
_YAML = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Number(NamedTuple):
    """A value of a result table; None where it is missing or not finite, and its 95 % interval where that is known."""

    value: float | None
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "Number":
        """Of a record of metrics.json: of a mean, the interval is 1.96 standard errors to both sides."""
        value, error = record["value"], record["standard_error"]
        if record["interval"] is not None:
            return cls(value, *record["interval"])
        if value is None or error is None:
            return cls(value)
        return cls(value, value - _NORMAL * error, value + _NORMAL * error)


Results = dict[str, dict[str, Number]]
"""By model and metric."""


@dataclass(frozen=True)
class RunRecord:
    """One run.

    Attributes:
        configuration: resolved, as it is in config.yaml.
        plan: rows of plan.json.
        stages: rows of artifacts.json: of the stages that are built or found.
        table: records of metrics.json; none as long as it is not evaluated.
        gates: rows of gates.json.
        message: why it did not end well.
    """

    path: Path
    state: State
    message: str | None
    configuration: Mapping[str, Any]
    environment: Mapping[str, Any]
    plan: list[dict[str, Any]]
    stages: dict[str, dict[str, Any]]
    table: list[dict[str, Any]]
    gates: list[dict[str, Any]]

    @classmethod
    def read(cls, path: Path) -> "RunRecord":
        """Read a run's directory.

        Raises:
            ConfigurationError: it is none.
            IntegrityError: a file is damaged.
            StorageError: a file cannot be read.
        """
        try:
            configuration = yaml.load((path / "config.yaml").read_bytes(), _YAML)  # noqa: S506, both are safe
            environment, plan = read_json(path / "env.json"), read_json(path / PLAN)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ConfigurationError(
                f"is not the directory of a run (it has no {Path(error.filename).name})",
                where=str(path),
                fix="choose a directory below runs/; `ups runs ls` lists them",
            ) from None
        except yaml.YAMLError as error:
            raise IntegrityError(f"is not YAML: {error}", where=str(path / "config.yaml")) from error
        stages = _read(path / ARTIFACTS, {})
        state, message = _state(path, finished={row["stage"] for row in plan} <= stages.keys())
        return cls(
            path, state, message, configuration, environment, plan, stages,
            _read(path / "metrics.json", []), _read(path / GATES, []),
        )  # fmt: skip

    @property
    def name(self) -> str:
        """Of its directory."""
        return self.path.name

    @property
    def digest(self) -> str:
        """Of its resolved configuration."""
        return digest_of(self.configuration)

    @property
    def started(self) -> datetime:
        """By the name of its directory.

        Raises:
            IntegrityError: it has another name.
        """
        try:
            return datetime.strptime(self.name.partition("-")[0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        except ValueError:
            raise IntegrityError(
                "a run's directory is named <UTC time>-<name>-<digest>", where=str(self.path)
            ) from None

    @property
    def seconds(self) -> float:
        """Of the stages that it built itself, in all launches."""
        return sum(row["seconds"] for row in self.stages.values() if not row["hit"])

    @property
    def seconds_from_scratch(self) -> float:
        """Of all its stages, whoever built them."""
        # A run of an earlier version has not looked at the parts.
        return sum(row.get("seconds_from_scratch", row["seconds"]) for row in self.stages.values())

    def cost(self, seconds: float) -> float | None:
        """US dollars, at the rate of its configuration; None where it has none."""
        return Resources.model_validate(self.configuration.get("resources") or {}).cost(seconds)

    @property
    def verdict(self) -> Literal["", "passed", "failed"]:
        """Of its gates; empty where it has none, or has not come to them."""
        if not self.gates:
            return ""
        return "passed" if all(row["passed"] for row in self.gates) else "failed"

    @property
    def results(self) -> dict[str, Results]:
        """By problem, of all scored fields together."""
        found: dict[str, Results] = {}
        for record in self.table:
            if record["field"] is None:
                of_model = found.setdefault(record["problem"], {}).setdefault(record["model"], {})
                of_model[record["metric"]] = Number.of(record)
        return found

    def value(self, key: str) -> Any:
        """Of a dotted key of the configuration.

        Raises:
            KeyError: it has no such key.
        """
        found: Any = self.configuration
        for part in key.split("."):
            if not isinstance(found, Mapping):
                raise KeyError(key)
            found = found[part]
        return found


def best_model(results: Results, metric: str = HEADLINE) -> tuple[str, Number] | None:
    """The trained model whose value is nearest to the best there is; None where none has one.

    Raises:
        ConfigurationError: see `distance`.
    """
    target = distance(metric)
    found = {
        model: numbers[metric]
        for model, numbers in results.items()
        if MODELS[model].best and metric in numbers and numbers[metric].value is not None
    }
    return min(found.items(), key=lambda item: target(item[1]), default=None)


def distance(metric: str) -> Callable[[Number], float]:
    """How far a value is from the best there is; infinitely, where there is none.

    Raises:
        ConfigurationError: there is no such metric, or no value of it is best.
    """
    known = {each.name: each for each in METRICS}
    ranking = known.get(metric)
    if ranking is None or ranking.target is None:
        ranked = ", ".join(name for name, each in known.items() if each.target is not None)
        raise ConfigurationError(
            f"{metric!r} ranks nothing" if metric in known else f"no metric is called {metric!r}",
            where="--metric",
            fix=f"name one of {ranked}",
        )
    return lambda number: math.inf if number.value is None else ranking.distance(number.value)


def where(assignments: Mapping[str, Any]) -> Callable[[RunRecord], bool]:
    """Whether a run's configuration has these values, by dotted keys; text is YAML, as in `--set`."""
    wanted = {key: parse_value(key, value) for key, value in assignments.items()}

    def holds(run: RunRecord) -> bool:
        try:
            return all(run.value(key) == value for key, value in wanted.items())
        except KeyError:
            return False

    return holds


def _state(path: Path, *, finished: bool) -> tuple[State, str | None]:
    """By its lock and not by a clock: what says nothing for an hour may be at work."""
    if is_running(path):
        return "running", None
    ended = _read(path / ENDED, None)  # written before the lock is freed
    if ended is not None:
        return ended["state"], ended["message"]
    return ("finished", None) if finished else ("interrupted", _KILLED)


def is_running(path: Path) -> bool:
    """Whether a run goes on, by its directory."""
    try:
        with (path / LOCK).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False  # of an earlier version
    return False


def _read(path: Path, absent: Any) -> Any:
    return read_json(path) if path.exists() else absent
