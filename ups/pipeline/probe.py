"""What a run will take, measured: its chain twice with few trajectories and few steps, but the models and batches that it has.

A stage's seconds are those of its steps, those of its validations, and a rest that grows evenly with the trajectories: from two
small numbers of them it is known for any other. So is memory.
"""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ups.artifacts.files import read_records
from ups.config import Configuration
from ups.config.data import PublishedData
from ups.config.schema import STAGES, TRAINING_STAGES
from ups.config.training import Training
from ups.errors import OutOfMemoryError
from ups.pipeline.plan import PlannedStage
from ups.pipeline.run import Output, Run, run_all
from ups.problems.generated import SPLITS

_FEW = (16, 48)  # train trajectories of the two probes; of the other splits a quarter
_STEPS, _WINDOW = 12, 3
_LARGEST_BATCH = 4096
_WORTH = 1.1  # samples a second of twice the batch, at least
_TEST_ROWS = 1000  # PDEBench's test set comes first in its files


@dataclass(frozen=True)
class Prediction:
    """Of one stage that is to be built.

    Attributes:
        seconds_per_step: None where nothing is trained.
        memory: peak gigabytes of the first rank; None where it is not known.
    """

    stage: str
    seconds: float
    seconds_per_step: float | None
    memory: float | None

    def to_json(self) -> dict[str, Any]:
        return {
            "seconds": self.seconds,
            "seconds_per_step": self.seconds_per_step,
            "memory_gigabytes": self.memory,
        }


@dataclass(frozen=True)
class _Measured:
    """One stage of one probe: seconds beside steps and validations, and those of one step and one validation."""

    trajectories: int
    rest: float
    step: float | None
    validation: float
    memory: float | None


def probe(
    config: str | Path,
    overrides: Mapping[str, Any],
    configuration: Configuration,
    plan: list[PlannedStage],
    root: Path,
    *,
    on_line: Output,
) -> dict[str, Prediction]:
    """Predictions for the stages of a plan that are to be built, by their names.

    Args:
        configuration: of the file and the overrides, resolved.
        root: the probes work below it, and leave nothing.

    Raises:
        UpsError: of the stage that failed.
    """
    wanted = [stage.name for stage in plan if stage.verdict == "MISS"]
    if not wanted:
        return {}
    measured: dict[str, list[_Measured]] = {name: [] for name in wanted}
    for train in _FEW:
        with _own_root(root) as place:
            small = {**overrides, **_small(configuration, train)}
            run = Run.start(config, small, root=place, until=wanted[-1])
            run_all(run, on_line=on_line, on_stage=lambda *_: None, until=wanted[-1])
            for name in wanted:
                measured[name].append(_of_stage(run, name, _trajectories(run.configuration)))
    whole = _trajectories(configuration)
    return {name: _predicted(name, measured[name], configuration, whole) for name in wanted}


def probe_batches(
    config: str | Path,
    overrides: Mapping[str, Any],
    configuration: Configuration,
    stage: str,
    root: Path,
    *,
    on_line: Output,
) -> list[dict[str, Any]]:
    """Samples a second and memory of a training by its batch size, doubled as long as that is worth it and memory lasts.

    The last record but those marked "out of memory" or "not worth it" is the size to take.
    """
    records: list[dict[str, Any]] = []
    size = getattr(configuration.training, stage).batch_size
    with _own_root(root) as place:
        while size <= _LARGEST_BATCH:
            small = {
                **overrides,
                **_small(configuration, _FEW[0]),
                f"training.{stage}.batch_size": size,
            }
            record: dict[str, Any] = {"stage": stage, "batch_size": size}
            try:
                run = Run.start(config, small, root=place, until=stage)
                run_all(run, on_line=on_line, on_stage=lambda *_: None, until=stage)
            except OutOfMemoryError:
                records.append(record | {"note": "out of memory"})
                break
            found = _of_stage(run, stage, 0)
            if found.step is None:
                break
            record |= {"samples_per_second": size / found.step, "memory_gigabytes": found.memory}
            if records and record["samples_per_second"] < _WORTH * records[-1]["samples_per_second"]:
                records.append(record | {"note": "not worth it"})
                break
            records.append(record)
            size *= 2
    return records


@contextmanager
def _own_root(root: Path) -> Iterator[Path]:
    work = root / "artifacts" / ".work"
    work.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix="probe-", dir=work))
    try:
        yield place
    finally:
        shutil.rmtree(place)


def _small(configuration: Configuration, train: int) -> dict[str, Any]:
    """Overrides that leave few trajectories and few steps."""
    changes: dict[str, Any] = {"seeds": 1, "tracking.wandb": "disabled"}
    several = len(configuration.problems) > 1 or configuration.data.source == "mix"
    for name, data in configuration.problems.items():
        place = f"data.problems.{name}" if several else "data"
        few = train // 4
        if isinstance(data, PublishedData):  # rows are fetched alone, where whole files are gigabytes
            first = _TEST_ROWS + train
            rows = {"test": [0, few], "train": [_TEST_ROWS, first], "validation": [first, first + few]}
            changes |= {f"{place}.trajectories": None, f"{place}.rows": rows}
        else:
            changes[f"{place}.trajectories"] = {"train": train, "validation": few, "test": few}
    for stage in TRAINING_STAGES:
        if getattr(configuration.training, stage).steps:
            settings = {
                "steps": _STEPS,
                "warmup_steps": 0,
                "log_every": _WINDOW,
                "validate_every": _STEPS,
                "checkpoint_every": _STEPS,
                "early_stop": None,
            }
            changes |= {f"training.{stage}.{key}": value for key, value in settings.items()}
    return changes


def _trajectories(configuration: Configuration) -> int:
    """Of all problems and splits."""
    return sum(getattr(data.counts, split) for data in configuration.problems.values() for split in SPLITS)


def _of_stage(run: Run, name: str, trajectories: int) -> _Measured:
    built = run.built[name].artifact
    logged = built.path / "logs" / "metrics.jsonl"
    records = read_records(logged) if logged.exists() else []
    paces = [record["seconds_per_step"] for record in records if "seconds_per_step" in record]
    validations = [record["validation_seconds"] for record in records if "validation_seconds" in record]
    memory = next((r["peak_memory_gigabytes"] for r in records if "peak_memory_gigabytes" in r), None)
    stepping, step = 0.0, 0
    for record in records:
        if "seconds_per_step" in record:
            stepping += record["seconds_per_step"] * (record["step"] - step)
            step = record["step"]
    return _Measured(
        trajectories,
        rest=built.manifest.seconds - stepping - sum(validations),
        step=min(paces[len(paces) // 2 :]) if paces else None,
        validation=sum(validations) / len(validations) if validations else 0.0,
        memory=memory,
    )


def _predicted(name: str, measured: list[_Measured], configuration: Configuration, whole: int) -> Prediction:
    few, more = measured

    def grown(left: float, right: float) -> float:
        """A line through both; a stage does not get faster by more data."""
        slope = max(0.0, (right - left) / (more.trajectories - few.trajectories))
        return max(left, right) + slope * (whole - more.trajectories)

    seconds = grown(few.rest, more.rest)
    memory = None if few.memory is None or more.memory is None else grown(few.memory, more.memory)
    step = None if few.step is None or more.step is None else min(few.step, more.step)
    if step is not None:
        settings: Training = STAGES[name].own(configuration)
        # Raw weights are validated once more at the end.
        validations = settings.steps // settings.validate_every + 2
        seconds += settings.steps * step + validations * grown(few.validation, more.validation)
    return Prediction(name, seconds, step, memory)
