"""A/B: two configurations on the same data, trained with the same seeds in turns, so that what the machine does meanwhile
meets both.

Stages up to the training's inputs are those of ordinary runs, and shared with them. The trainings are made anew below
`comparisons/`, for one that was sealed on another day tells nothing of today's speed; and each arm has a store of its own there, for
settings that change speed alone are in no key. The same comparison again, with more seeds or after an interruption, trains what it
has not trained yet.
"""

import os
import platform
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
from ups.config.schema import CHANGE_NO_RESULT, DATA, STAGES
from ups.config.training import Training
from ups.errors import ConfigurationError, StorageError
from ups.pipeline.device import require_one_machine
from ups.pipeline.graph import chain_to
from ups.pipeline.run import Output, Run, find_root, run_all
from ups.pipeline.training_records import Records, paces, peak_memory, validations

BASELINE, OPTIMISED = "baseline", "optimised"
COMPARISONS = "comparisons"
COMPARED = ("autoencoder", "operator")
"""Trainings whose validation error is one of decoded fields, and means the same in every arm."""
_NOT_COMPARED = CHANGE_NO_RESULT | {"name", "seed", "seeds", "evaluation"}


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
        error: of the published weights on decoded fields of the validation split; infinite where it is no number.
        curve: seconds and error at each validation.
        memory: peak gigabytes of the first rank; None where it is not known.
    """

    arm: str
    seed: int
    seconds_per_step: float
    seconds: float
    error: float
    curve: list[tuple[float, float]]
    memory: float | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def arms_of(baseline: Arm, optimised: Arm, *, leave_one_out: bool = False) -> list[Arm]:
    """The two under their names here, and the optimised one without each of its differences, where that is asked for.

    Raises:
        ConfigurationError: one is wrong, their data differ, or nothing else does; or a difference cannot be left out alone.
    """
    arms = [replace(baseline, name=BASELINE), replace(optimised, name=OPTIMISED)]
    loaded = [arm.load() for arm in arms]
    for configuration in loaded:
        require_one_machine(configuration, "a comparison")
    left, right = (configuration.model_dump(mode="json") for configuration in loaded)
    if left["data"] != right["data"]:
        keys = ", ".join(f"data.{key}" for key in differences(left["data"], right["data"]))
        raise ConfigurationError(
            f"has other data than {baseline.config} ({keys}), and errors on them would not compare",
            where=optimised.config,
            fix="give both the same data",
        )
    compared = [{key: values[key] for key in values.keys() - _NOT_COMPARED} for values in (left, right)]
    different = differences(compared[0], compared[1])
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
        if isinstance(one, dict) and isinstance(other, dict) and one.get("kind") == other.get("kind"):
            found |= differences(one, other, f"{prefix}{key}.")
        else:
            found[prefix + key] = one
    return found


def turns(arms: Sequence[Arm], seeds: int) -> Iterator[tuple[Arm, int]]:
    """Every arm with every seed from the first arm's on, one seed after the other; each time another arm begins."""
    first = arms[0].load().seed
    for number in range(seeds):
        start = number % len(arms)
        for arm in [*arms[start:], *arms[:start]]:
            yield arm, first + number


def name_of(arms: Sequence[Arm]) -> str:
    """Of the directory of a comparison: that of arms that train the same on the same machine goes on where it was."""
    values = {arm.name: arm.load().model_dump(mode="json", exclude={*_NOT_COMPARED}) for arm in arms}
    return digest_of({"machine": platform.node(), "arms": values})[:12]


def train(
    arm: Arm, seed: int, stage: str, comparison: str, root: str | Path | None, *, on_line: Output
) -> Trained:
    """Train one arm with one seed, or find that this comparison has done so.

    Args:
        stage: one of `COMPARED`.
        comparison: see `name_of`.

    Raises:
        UpsError: of the stage that failed.
        StorageError: the root is spread over several disks, or cannot be written.
    """
    place = find_root(root)
    # A W&B process beside one arm alone would slow it down.
    overrides = {**arm.overrides, "seed": seed, "seeds": 1, "tracking.wandb": "disabled"}
    own = Store(place / COMPARISONS / comparison / digest_of({"arm": arm.name})[:12])
    until = max(STAGES[stage].inputs, key=list(STAGES).index)
    with Run.start(arm.config, overrides, root=place, until=until) as before:
        for name in chain_to(until):
            artifact = before.stage(name, on_line=on_line).artifact
            for part in artifact.manifest.parts.values():
                _share(before.store, own, DATA, part["digest"])
            _share(before.store, own, name, artifact.digest)
    run = Run.start(arm.config, overrides, root=own.root, until=stage, private=True)
    run_all(run, on_line=on_line, on_stage=lambda *_: None, until=stage)
    settings: Training = STAGES[stage].own(run.configuration)
    records = read_records(run.built[stage].artifact.path / "logs" / "metrics.jsonl")
    return read_training(arm.name, seed, stage, records, best=settings.publish == "best")


def read_training(arm: str, seed: int, stage: str, records: Records, *, best: bool) -> Trained:
    """From the records of a stage.

    best: the weights of the best validation were published, and not the last ones.

    Raises:
        ConfigurationError: it trained nothing.
    """
    taken = paces(records)
    if not taken:
        raise ConfigurationError(
            f"{arm} trains nothing", where=f"training.{stage}.steps", fix="compare another stage"
        )
    seconds = {pace.step: pace.seconds for pace in taken}
    curve = [(seconds[step], error) for step, error in validations(records)]
    published = min(error for _, error in curve) if best else curve[-1][1]
    middle = statistics.median(pace.seconds_per_step for pace in taken[len(taken) // 2 :])
    return Trained(arm, seed, middle, taken[-1].seconds, published, curve, peak_memory(records))


def _share(source: Store, target: Store, stage: str, digest: str) -> None:
    """The same files below another root; whoever is removed first takes nothing from the other."""
    path = target.path(stage, digest)
    with target.lock(stage, digest):
        if path.exists():
            return
        partial = path.with_name(f".{path.name}")
        try:
            if partial.exists():  # of a process that was killed
                shutil.rmtree(partial)
            shutil.copytree(source.path(stage, digest), partial, copy_function=os.link)
            partial.rename(path)
        except (OSError, shutil.Error) as error:
            raise StorageError(f"cannot be shared with a comparison: {error}", where=str(path)) from error
