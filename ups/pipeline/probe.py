"""What a run will take, measured: its chain twice with few trajectories and few steps, but the models and batches that it has.

A stage's seconds are those of its steps, those of its validations, and a rest that grows evenly with the trajectories that it
reads: from two small numbers of them it is known for any other. So is memory. Not predicted: the download of whole published files,
and work that is capped, which is taken for work that grows.
"""

import math
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ups.artifacts.files import read_records
from ups.config import Configuration
from ups.config.data import Mix, PublishedData
from ups.config.schema import STAGES, TRAINING_STAGES
from ups.config.training import Training
from ups.errors import ConfigurationError, OutOfMemoryError
from ups.pipeline.device import require_one_machine
from ups.pipeline.execute import Built
from ups.pipeline.plan import PlannedStage
from ups.pipeline.run import Output, Run, run_all
from ups.pipeline.training_records import paces, peak_memory
from ups.problems.generated import SPLITS
from ups.problems.published import TEST_ROWS

_FEW, _MORE = 16, 160  # train trajectories of the two probes; of the other splits a quarter, or fewer
_STEPS, _WINDOW = 12, 3
_FEWEST_STEPS = 3  # the first one has what is done once, as compiling
_FEWEST_SCORED = 2  # test trajectories, of which those outside the training range are a part: ensembles take most of a rehearsal
_LARGEST_BATCH = 4096
_WORTH = 1.1  # samples a second of twice the batch, at least


@dataclass(frozen=True)
class Prediction:
    """What building one stage will take.

    Attributes:
        seconds: of the whole stage, with the start of its process.
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
    """One stage of one probe.

    Attributes:
        trajectories: that it reads; validated: those of the validation split.
        rest: seconds beside steps and validations.
        step, validation: seconds of one.
    """

    trajectories: int
    validated: int
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
    require_one_machine(configuration, "a probe")
    wanted = [stage.name for stage in plan if stage.verdict == "MISS"]
    if not wanted:
        return {}
    few, more = (
        _measured(config, {**overrides, **_small(configuration, train)}, wanted, root, on_line)
        for train in _sizes(configuration)
    )
    return {name: _predicted(name, few[name], more[name], configuration) for name in wanted}


def rehearse(
    config: str | Path,
    overrides: Mapping[str, Any],
    configuration: Configuration,
    plan: list[PlannedStage],
    root: Path,
    *,
    on_line: Output,
    on_stage: Callable[[str, Built | None], None],
) -> dict[str, Prediction]:
    """As `probe`, by one chain with the fewest trajectories and steps: whether every stage works, and what it takes at least.

    Of what grows with the trajectories, validations are predicted and the rest is not, nor memory. Rejected: both chains of
    `probe` with fewer steps; whoever waits for a run would wait twice as long before it. A slope from one chain; the start
    of a process, which takes longest in it, is then taken for work.

    Raises:
        UpsError: of the stage that failed.
    """
    require_one_machine(configuration, "a rehearsal")
    wanted = [stage.name for stage in plan if stage.verdict == "MISS"]
    if not wanted:
        return {}
    changes = _small(
        configuration, _sizes(configuration)[0], scored=_FEWEST_SCORED, steps=_FEWEST_STEPS, window=1
    )
    found = _measured(config, {**overrides, **changes}, wanted, root, on_line, on_stage)
    origin = {name: replace(one, validated=0, validation=0.0) for name, one in found.items()}
    return {name: _predicted(name, origin[name], found[name], configuration) for name in wanted}


def _measured(
    config: str | Path,
    overrides: Mapping[str, Any],
    wanted: Sequence[str],
    root: Path,
    on_line: Output,
    on_stage: Callable[[str, Built | None], None] = lambda *_: None,
) -> dict[str, _Measured]:
    """Of a chain in a root of its own, up to the last stage that is wanted."""
    with _own_root(root) as place:
        run = Run.start(config, overrides, root=place, until=wanted[-1], private=True)
        run_all(run, on_line=on_line, on_stage=on_stage, until=wanted[-1])
        return {name: _of_stage(run, name) for name in wanted}


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

    The last record without a note is the size to take.

    Raises:
        ConfigurationError: the stage trains nothing.
        UpsError: of the stage that failed.
    """
    require_one_machine(configuration, "a probe")
    records: list[dict[str, Any]] = []
    settings = getattr(configuration.training, stage)
    if not settings.steps:
        raise ConfigurationError(
            "0: it trains nothing", where=f"training.{stage}.steps", fix="name another stage"
        )
    size = settings.batch_size
    with _own_root(root) as place:
        while size <= _LARGEST_BATCH:
            small = {
                **overrides,
                **_small(configuration, _sizes(configuration)[0]),
                f"training.{stage}.batch_size": size,
            }
            record: dict[str, Any] = {"stage": stage, "batch_size": size}
            try:
                run = Run.start(config, small, root=place, until=stage, private=True)
                run_all(run, on_line=on_line, on_stage=lambda *_: None, until=stage)
            except OutOfMemoryError:
                records.append(record | {"note": "out of memory"})
                break
            found = _of_stage(run, stage)
            assert found.step is not None, "it has steps"
            record |= {"samples_per_second": size / found.step, "memory_gigabytes": found.memory}
            if records and record["samples_per_second"] < _WORTH * records[-1]["samples_per_second"]:
                records.append(record | {"note": "not worth it"})
                break
            records.append(record)
            size *= 2
    return records


@contextmanager
def _own_root(root: Path) -> Iterator[Path]:
    made = [path for path in (root, *root.parents) if not path.exists()]
    root.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix=".probe-", dir=root))
    try:
        yield place
    finally:
        shutil.rmtree(place)
        with suppress(OSError):  # somebody else has begun to use it
            for path in made:
                path.rmdir()


def _sizes(configuration: Configuration) -> tuple[int, int]:
    """Train trajectories of the two probes: few, but enough that some are kept for the residual models."""
    enough = math.ceil(2 / configuration.training.operator.residual_fraction)
    few = max(_FEW, enough)
    return few, few * (_MORE // _FEW)


def _small(
    configuration: Configuration,
    train: int,
    *,
    scored: int | None = None,
    steps: int = _STEPS,
    window: int = _WINDOW,
) -> dict[str, Any]:
    """Overrides that leave few trajectories and few steps, of which every `window` are recorded.

    scored: trajectories; None: a quarter of the train trajectories.
    """
    scored = train // 4 if scored is None else scored
    # A few steps pass no gate.
    changes: dict[str, Any] = {"seeds": 1, "tracking.wandb": "disabled", "gates": {}}
    several = isinstance(configuration.data, Mix)
    small = configuration.evaluation.small
    for name, data in configuration.problems.items():
        place = f"data.problems.{name}" if several else "data"
        counts = {
            "train": min(train, data.counts.train),
            "validation": min(train // 4, data.counts.validation),
            "test": min(scored, data.counts.test),
        }
        if isinstance(data, PublishedData):  # rows are fetched alone, where whole files are gigabytes
            first = TEST_ROWS + counts["train"]
            rows = {
                "test": [0, counts["test"]],
                "train": [TEST_ROWS, first],
                "validation": [first, first + counts["validation"]],
            }
            changes |= {f"{place}.trajectories": None, f"{place}.rows": rows}
        else:
            changes[f"{place}.trajectories"] = counts
        if small is not None:
            small = min(small, counts["validation"], scored)
            changes["evaluation.small"] = small
    for stage in TRAINING_STAGES:
        if getattr(configuration.training, stage).steps:
            settings = {
                "steps": steps,
                "warmup_steps": 0,
                "log_every": window,
                "validate_every": steps,
                "checkpoint_every": steps,
                "early_stop": None,
            }
            changes |= {f"training.{stage}.{key}": value for key, value in settings.items()}
    return changes


def _trajectories(configuration: Configuration, splits: Sequence[str]) -> int:
    """Of all problems."""
    return sum(getattr(data.counts, split) for data in configuration.problems.values() for split in splits)


def _read_by(name: str, configuration: Configuration) -> int:
    splits = STAGES[name].splits(configuration) or SPLITS
    if name == "evaluate":  # of the train split it reads no more than a mean
        splits = tuple(split for split in splits if split != "train")
    return _trajectories(configuration, splits)


def _of_stage(run: Run, name: str) -> _Measured:
    built = run.built[name].artifact
    logged = built.path / "logs" / "metrics.jsonl"
    records = read_records(logged) if logged.exists() else []
    taken = paces(records)
    # The first windows hold what is done once, as compiling.
    step = min(pace.seconds_per_step for pace in taken[len(taken) // 2 :]) if taken else None
    validations = [record["validation_seconds"] for record in records if "validation_seconds" in record]
    return _Measured(
        _read_by(name, run.configuration),
        _trajectories(run.configuration, ["validation"]),
        rest=built.manifest.seconds - (step or 0.0) * (taken[-1].step if taken else 0) - sum(validations),
        step=step,
        validation=sum(validations) / len(validations) if validations else 0.0,
        memory=peak_memory(records),
    )


def _predicted(name: str, few: _Measured, more: _Measured, configuration: Configuration) -> Prediction:
    whole = _read_by(name, configuration)
    seconds = _grown(few.rest, more.rest, few.trajectories, more.trajectories, whole)
    memory = None
    if few.memory is not None and more.memory is not None:
        memory = _grown(few.memory, more.memory, few.trajectories, more.trajectories, whole)
    step = None if few.step is None or more.step is None else min(few.step, more.step)
    if step is not None:
        settings: Training = STAGES[name].own(configuration)
        # Raw weights are validated once more at the end.
        validations = math.ceil(settings.steps / settings.validate_every) + 1
        validated = _trajectories(configuration, ["validation"])
        each = _grown(few.validation, more.validation, few.validated, more.validated, validated)
        seconds += settings.steps * step + validations * each
    return Prediction(name, seconds, step, memory)


def _grown(left: float, right: float, few: int, more: int, whole: int) -> float:
    """On the line through two points; nothing gets faster by more data, and where there are no more it is what it was."""
    if more == few:
        return max(left, right)
    slope = max(0.0, (right - left) / (more - few))
    return max(left, right) + slope * (whole - more)
