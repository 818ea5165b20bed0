"""A/B: two configurations on the same data, trained with the same seeds in turns, so that what the machine does meanwhile
meets both.

Stages up to the training's inputs are those of ordinary runs, and shared with them. The trainings are made anew below
`comparisons/`, for a training that was sealed on another day tells nothing of today's speed; one that belongs to this comparison
and was interrupted goes on.
"""

import os
import shutil
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ups.artifacts import Store
from ups.artifacts.files import read_records
from ups.artifacts.identity import digest_of
from ups.config import Configuration, load_configuration
from ups.config.schema import DATA, STAGES
from ups.errors import ConfigurationError
from ups.pipeline.run import Output, Run, find_root, run_all

BASELINE, OPTIMISED = "baseline", "optimised"
COMPARISONS = "comparisons"
_NOT_COMPARED = {"name", "seed", "seeds", "tracking", "evaluation"}


@dataclass(frozen=True)
class Arm:
    """One of the configurations that are compared."""

    name: str
    config: str
    overrides: Mapping[str, Any]

    def load(self) -> Configuration:
        """Its configuration, not resolved."""
        return load_configuration(self.config, self.overrides)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Trained:
    """What a training of one arm gave.

    Attributes:
        seconds_per_step: median of the second half of the training's windows.
        seconds: of all steps; validations and checkpoints are left out.
        error: at the last validation, of the averaged weights on decoded fields.
        curve: seconds and error at each validation.
        memory: peak gigabytes of the first rank.
    """

    arm: str
    seed: int
    seconds_per_step: float
    seconds: float
    error: float
    curve: list[tuple[float, float]]
    memory: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def arms_of(baseline: Arm, optimised: Arm, *, leave_one_out: bool = False) -> list[Arm]:
    """The two under their names here, and the optimised one without each of its differences, where that is asked for.

    Raises:
        ConfigurationError: one is wrong, their data differ, or nothing else does; or a difference cannot be left out alone.
    """
    arms = [replace(baseline, name=BASELINE), replace(optimised, name=OPTIMISED)]
    left, right = (arm.load().model_dump(mode="json") for arm in arms)
    if left["data"] != right["data"]:
        keys = ", ".join(f"data.{key}" for key in differences(left["data"], right["data"]))
        raise ConfigurationError(
            f"has other data than {baseline.config} ({keys}), and errors on them would not compare",
            where=optimised.config,
            fix="give both the same data",
        )
    different = differences(
        *({key: values[key] for key in values.keys() - _NOT_COMPARED} for values in (left, right))
    )
    if not different:
        raise ConfigurationError(
            f"is the same training as {baseline.config}", where=optimised.config, fix="name another file"
        )
    if leave_one_out and len(different) > 1:
        for key, value in different.items():
            arm = Arm(f"without {key}", optimised.config, {**optimised.overrides, key: value})
            try:
                arm.load()
            except ConfigurationError as error:
                raise ConfigurationError(
                    f"cannot be left out of {optimised.config} by itself: {error}",
                    where=key,
                    fix="compare without leaving one out, or make the two differ by keys that stand alone",
                ) from error
            arms.append(arm)
    return arms


def differences(left: Mapping[str, Any], right: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys with other values, and the left ones; what is chosen by a kind differs as a whole."""
    found: dict[str, Any] = {}
    for key in sorted({*left, *right}):
        one, other = left.get(key), right.get(key)
        if one == other:
            continue
        sections = isinstance(one, dict) and isinstance(other, dict)
        if sections and one.get("kind") == other.get("kind"):
            found |= differences(one, other, f"{prefix}{key}.")
        else:
            found[prefix + key] = one
    return found


def turns(arms: Sequence[Arm], seeds: int) -> Iterator[tuple[Arm, int]]:
    """Every arm with every seed, one seed after the other; each time another arm begins."""
    for seed in range(seeds):
        start = seed % len(arms)
        for arm in [*arms[start:], *arms[:start]]:
            yield arm, arm.load().seed + seed


def name_of(arms: Sequence[Arm]) -> str:
    """Of the directory of a comparison: the same arms go on where they were."""
    return digest_of([arm.load().model_dump(mode="json") for arm in arms])[:12]


def train(
    arm: Arm, seed: int, stage: str, comparison: str, root: str | Path | None, *, on_line: Output
) -> Trained:
    """Train one arm with one seed, or find that this comparison has done so.

    comparison: see `name_of`.

    Raises:
        UpsError: of the stage that failed.
    """
    place = find_root(root)
    overrides = {**arm.overrides, "seed": seed, "seeds": 1}
    until = max(STAGES[stage].inputs, key=list(STAGES).index)
    before = Run.start(arm.config, overrides, root=place, until=until)
    run_all(before, on_line=on_line, on_stage=lambda *_: None, until=until)
    own = Store(place / COMPARISONS / comparison)
    for name, built in before.built.items():
        _share(built.artifact.path, own.path(name, built.artifact.digest))
        for part in built.artifact.manifest.parts.values():
            _share(before.store.path(DATA, part["digest"]), own.path(DATA, part["digest"]))
    run = Run.start(arm.config, overrides, root=own.root, until=stage)
    run_all(run, on_line=on_line, on_stage=lambda *_: None, until=stage)
    records = read_records(run.built[stage].artifact.path / "logs" / "metrics.jsonl")
    return read_training(arm.name, seed, stage, records)


def read_training(arm: str, seed: int, stage: str, records: Sequence[Mapping[str, Any]]) -> Trained:
    """From the records of a stage.

    Raises:
        ConfigurationError: it trained nothing.
    """
    paces: list[float] = []
    curve: list[tuple[float, float]] = []
    spent, step, memory = 0.0, 0, 0.0
    for record in records:
        memory = record.get("peak_memory_gigabytes", memory)
        if "seconds_per_step" in record:
            spent += record["seconds_per_step"] * (record["step"] - step)
            step = record["step"]
            paces.append(record["seconds_per_step"])
        metric = next((key for key in record if key in {"validation_relative_l2", "validation_loss"}), None)
        if metric is not None:
            curve.append((spent, record[metric]))
    if not paces:
        raise ConfigurationError(
            f"{arm} trains nothing", where=f"training.{stage}.steps", fix="compare another stage"
        )
    middle = statistics.median(paces[len(paces) // 2 :])
    return Trained(arm, seed, middle, spent, curve[-1][1], curve, memory)


def _share(source: Path, target: Path) -> None:
    """The same files under another root; whoever is removed first takes nothing from the other."""
    if target.exists():
        return
    partial = target.with_name(f".{target.name}")
    if partial.exists():  # of a process that was killed
        shutil.rmtree(partial)
    shutil.copytree(source, partial, copy_function=os.link)
    partial.rename(target)
