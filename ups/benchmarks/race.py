"""Races: the operator of a configuration against its peers, or against itself with changes, for the same seconds.

Every entrant goes through the ordinary stages in this one process, one after the other. The learning rate's schedule needs the number of steps before the training begins. So some steps are timed, the seconds
are made a number of steps, and the seconds that the training really took are reported beside the planned ones. Seconds
are those of training, an autoencoder's included; validation and caching count for no entrant.

Against peers, every entrant is tuned alike: each of `variants` is trained for `TUNING_SHARE` of the seconds, and the
validation split decides. (The operator tries its own settings too, where they are none of these.) The test split is
read once, when all is trained.

An ablation trains every variant by its own settings and scores it on the validation split, where asked also outside the
training range: on trajectories from the same initial states with another amplitude, offset or parameter, one table for each.
"""

import logging
import math
import shutil
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from filelock import FileLock, Timeout

from ups.artifacts.files import read_records
from ups.artifacts.identity import code_identity, digest_of
from ups.benchmarks.stages import run_stage
from ups.config import Configuration
from ups.config.load import validate
from ups.config.peers import as_peer
from ups.data.cache_source import sources_of_artifact
from ups.data.dataset import load_datasets
from ups.errors import ConfigurationError, NotFiniteError, PreflightError, StageError
from ups.evaluation.baselines import trivial_forecasts
from ups.evaluation.evaluation_set import EvaluationSet, evaluation_set, train_means
from ups.evaluation.forecaster import Forecaster, OperatorForecasts, linear_forecasters, operator_forecaster
from ups.evaluation.metrics import paired_ratio
from ups.evaluation.outside import SPLIT as OUTSIDE
from ups.evaluation.outside import each_by_itself, outside_dataset
from ups.evaluation.result_records import HEADLINE, score_records
from ups.evaluation.result_table import network_predictor
from ups.evaluation.scores import Scores, score
from ups.kinds import kind_of, kinds_of
from ups.models.build import MODEL_FILE, codec_of_operator, load_model
from ups.models.codec import ProblemCodec
from ups.models.operators import LatentOperator
from ups.problems.generated import FromSinusoids
from ups.runtime.ranks import join_ranks

log = logging.getLogger(__name__)

OPERATOR = "operator"
LOCK = "race.lock"  # held, it keeps `ups cache gc` away too
_FOUND_BY_NAME = (
    "ups.models.operators",
    "ups.training.optimizers",
    "ups.training.schedules",
    "ups.losses.terms",
    "ups.problems.equations",
)
"""Packages of what entrants may choose."""

METRICS = (HEADLINE, f"{HEADLINE}_median", "pdebench_nrmse", "seconds_per_trajectory")
TUNING_SHARE = 0.125
_TIMED_STEPS, _TIMED_WINDOW = 20, 5  # of which the first window is not counted
_WARMUP = 20  # one step in so many

Record = dict[str, Any]


def variants(configuration: Configuration) -> list[dict[str, Any]]:
    """What every entrant may choose from: changes of training.operator."""
    batch = configuration.training.operator.batch_size
    adamw, muon = {"kind": "adamw"}, {"kind": "muon"}
    return [
        {"optimizer": adamw, "learning_rate": 1e-3, "batch_size": batch},
        {"optimizer": adamw, "learning_rate": 3e-3, "batch_size": batch},
        {"optimizer": adamw, "learning_rate": 3e-3, "batch_size": max(1, batch // 2)},
        {
            "optimizer": muon | {"matrix_learning_rate": 0.02},
            "learning_rate": 2e-3,
            "batch_size": batch,
        },
        {
            "optimizer": muon | {"matrix_learning_rate": 0.02},
            "learning_rate": 2e-3,
            "batch_size": max(1, batch // 2),
        },
        {
            "optimizer": muon | {"matrix_learning_rate": 0.05},
            "learning_rate": 4e-3,
            "batch_size": max(1, batch // 2),
        },
    ]


def describe(choice: Mapping[str, Any]) -> str:
    """A variant in words."""
    optimizer = choice["optimizer"]
    matrices = optimizer.get("matrix_learning_rate")
    kind = optimizer["kind"] if matrices is None else f"{optimizer['kind']} {matrices:g}"
    return f"{kind}, rate {choice['learning_rate']:g}, batch {choice['batch_size']}"


@dataclass(frozen=True)
class Trained:
    """A finished training.

    Attributes:
        artifacts: directories by stage: autoencoder, cache_encode, operator.
        training: the variant, in words.
        planned: seconds that were asked for.
        seconds: that it took.
        validation: relative L2 of full rollouts of the validation split, mean over problems.
    """

    artifacts: dict[str, Path]
    training: str
    steps: int
    planned: float
    seconds: float
    validation: float

    def to_json(self) -> Record:
        """All but the artifacts."""
        return {
            "training": self.training,
            "steps": self.steps,
            "planned_seconds": self.planned,
            "seconds": self.seconds,
            "validation_relative_l2": self.validation if math.isfinite(self.validation) else None,
        }


class Race:
    """All trainings of a race, below one directory; what an interrupted race finished there is used again."""

    def __init__(
        self,
        configuration: Configuration,
        download: Path,
        directory: Path,
        changed: Mapping[str, Configuration] | None = None,
    ) -> None:
        """changed: the entrants of an ablation, beside the configuration itself."""
        self.configuration, self.download = configuration, download
        self.changed = dict(changed or {})
        derivation = {
            "configuration": configuration.model_dump(mode="json"),
            "changed": {name: other.model_dump(mode="json") for name, other in self.changed.items()},
            "download": download.name,
            "code": code_identity(
                __name__, *(f"{package}.{kind}" for package in _FOUND_BY_NAME for kind in kinds_of(package))
            ),
        }
        self.directory = directory / "peers" / digest_of(derivation)
        self.tuning: list[Record] = []
        sources = sources_of_artifact(download)
        self._grids = {problem: source.grid for problem, source in sources.items()}
        self._periodic = {problem for problem, source in sources.items() if source.boundary == "periodic"}

    def entrant(self, name: str) -> Configuration:
        """The configuration of an entrant: the operator as it is or with changes, or a peer in its place."""
        if name == OPERATOR:
            return self.configuration
        if name in self.changed:
            return self.changed[name]
        return as_peer(self.configuration, name, self._grids, self._periodic)

    def run(self, name: str, seconds: float, seeds: int) -> list[Trained]:
        """Tune an entrant with the first seed, and train it with every seed."""
        configuration = self.entrant(name)
        self._left(seconds, self._codec(name, configuration, configuration.seed))
        own = [_own(configuration)] if name == OPERATOR else []
        tried = {describe(choice) for choice in own}
        choices = own + [choice for choice in variants(configuration) if describe(choice) not in tried]
        choice, seconds_per_step = self._tune(name, configuration, choices, seconds)
        return self._seeds(name, configuration, choice, seconds_per_step, seconds, seeds)

    def run_as_configured(self, name: str, seconds: float, seeds: int) -> list[Trained]:
        """Train an entrant by its own settings, with every seed."""
        configuration = self.entrant(name)
        choice = _own(configuration)
        seconds_per_step = self._seconds_per_step(name, configuration, choice)
        return self._seeds(name, configuration, choice, seconds_per_step, seconds, seeds)

    def _seeds(
        self,
        name: str,
        configuration: Configuration,
        choice: dict[str, Any],
        seconds_per_step: float,
        seconds: float,
        seeds: int,
    ) -> list[Trained]:
        trained = []
        for seed in range(configuration.seed, configuration.seed + seeds):
            log.info("%s: %s, seed %d, %.4g s", name, describe(choice), seed, seconds)
            trained.append(self._train(name, configuration, choice, seed, seconds_per_step, seconds, "whole"))
        return trained

    def clear(self) -> None:
        """Remove all files of the race."""
        shutil.rmtree(self.directory)

    def _tune(
        self, name: str, configuration: Configuration, choices: list[dict[str, Any]], seconds: float
    ) -> tuple[dict[str, Any], float]:
        """The choice with the least validation error, and its seconds per step."""
        tried: list[tuple[float, float, dict[str, Any]]] = []
        step_seconds: dict[tuple[str, int], float] = {}
        for choice in choices:
            alike = choice["optimizer"]["kind"], choice["batch_size"]
            record: Record = {"measure": "tuning", "model": name, "training": describe(choice)}
            try:
                if alike not in step_seconds:
                    step_seconds[alike] = self._seconds_per_step(name, configuration, choice)
                share = TUNING_SHARE * seconds
                trained = self._train(
                    name, configuration, choice, configuration.seed, step_seconds[alike], share, "tuning"
                )
            except NotFiniteError as error:  # a variant that diverges has lost; the race goes on
                log.info("%s: %s: %s", name, describe(choice), error)
                self.tuning.append(record | {"diverged": True})
                continue
            tried.append((trained.validation, trained.seconds / trained.steps, choice))
            self.tuning.append(record | trained.to_json())
            log.info("%s: %s: validation %.4g", name, describe(choice), trained.validation)
        if not tried:
            raise StageError("no variant of the training stayed finite", where=name)
        _, seconds_per_step, choice = min(tried, key=lambda one: one[0])
        return choice, seconds_per_step

    def _seconds_per_step(self, name: str, configuration: Configuration, choice: dict[str, Any]) -> float:
        """Seconds per step, once it has settled."""
        timed = self._operator(name, configuration, choice, configuration.seed, _TIMED_STEPS, "timing")
        step_seconds = [
            record["seconds_per_step"]
            for record in read_records(timed / "logs" / "metrics.jsonl")
            if "seconds_per_step" in record and record["step"] > _TIMED_WINDOW
        ]
        if not step_seconds:
            raise ConfigurationError(
                f"{kind_of(configuration.model.operator)} has nothing to train, and no use for seconds",
                where="model.operator",
                fix="race with another kind",
            )
        return statistics.median(step_seconds)

    def _train(
        self,
        name: str,
        configuration: Configuration,
        choice: dict[str, Any],
        seed: int,
        seconds_per_step: float,
        seconds: float,
        purpose: Literal["tuning", "whole"],
    ) -> Trained:
        """Train for about `seconds`, at `seconds_per_step`; of the whole, an autoencoder's are part."""
        artifacts = self._codec(name, configuration, seed)
        left = self._left(seconds, artifacts) if purpose == "whole" else seconds
        steps = max(1, round(left / seconds_per_step))
        artifacts["operator"] = self._operator(name, configuration, choice, seed, steps, purpose)
        return _trained(artifacts, choice, seconds, seconds - left + training_seconds(artifacts["operator"]))

    def _left(self, seconds: float, artifacts: Mapping[str, Path]) -> float:
        """Seconds that an autoencoder leaves the operator."""
        before = training_seconds(artifacts["autoencoder"])
        if before >= seconds:
            raise ConfigurationError(
                f"the autoencoder alone takes {before:.3g} s of {seconds:.3g} s",
                where="--seconds",
                fix="give more seconds",
            )
        return seconds - before

    def _codec(self, name: str, configuration: Configuration, seed: int) -> dict[str, Path]:
        """Autoencoder and cache of an entrant."""
        seeded = _changed(configuration, seed, {})
        work = self._place(name, seed)
        inputs = {"download": self.download}
        trained = run_stage("autoencoder", seeded, work / "autoencoder", inputs)
        cache = run_stage("cache_encode", seeded, work / "cache_encode", inputs | {"autoencoder": trained})
        return {"autoencoder": trained, "cache_encode": cache}

    def _place(self, name: str, seed: int) -> Path:
        """By a digest: a user's name for a change may be no valid directory name."""
        return self.directory / f"{digest_of({'entrant': name})[:12]}-{seed}"

    def _operator(
        self,
        name: str,
        configuration: Configuration,
        choice: dict[str, Any],
        seed: int,
        steps: int,
        purpose: str,
    ) -> Path:
        changes = {
            "steps": steps,
            "warmup_steps": steps // _WARMUP,
            "final_learning_rate": choice["learning_rate"] / 100,
            "validate_every": steps,
        }
        if purpose == "timing":
            changes["log_every"] = _TIMED_WINDOW
        seeded = _changed(configuration, seed, choice | changes)
        cache = self._codec(name, configuration, seed)["cache_encode"]
        work = self._place(name, seed) / f"{purpose}-{digest_of(choice)[:8]}-{steps}"
        if seeded.execution.compile:
            torch.compiler.reset()  # a process may compile one function for so many networks and no more
        return run_stage("operator", seeded, work, {"download": self.download, "cache_encode": cache})


def _own(configuration: Configuration) -> dict[str, Any]:
    """The variant that a configuration itself is."""
    training = configuration.training.operator
    return {
        "optimizer": training.optimizer.model_dump(),
        "learning_rate": training.learning_rate,
        "batch_size": training.batch_size,
    }


def _changed(configuration: Configuration, seed: int, training: Mapping[str, Any]) -> Configuration:
    """With another seed and other values of training.operator."""
    values: dict[str, Any] = configuration.model_dump(mode="json") | {"seed": seed}
    values["training"]["operator"] |= training
    return validate(values, where=f"a variant of {configuration.name}")


def _trained(artifacts: dict[str, Path], choice: Mapping[str, Any], planned: float, took: float) -> Trained:
    records = read_records(artifacts["operator"] / "logs" / "metrics.jsonl")
    errors = [record["validation_relative_l2"] for record in records if "validation_relative_l2" in record]
    return Trained(
        artifacts,
        describe(choice),
        steps=records[-1]["step"],
        planned=planned,
        seconds=took,
        # A rollout that is no number is worse than any.
        validation=math.inf if errors[-1] is None else errors[-1],
    )


def training_seconds(artifact: Path) -> float:
    """Seconds of a training's steps, from its records; 0 of one without steps."""
    seconds, before = 0.0, 0
    for record in read_records(artifact / "logs" / "metrics.jsonl"):
        if "seconds_per_step" in record:
            seconds += record["seconds_per_step"] * (record["step"] - before)
            before = record["step"]
    return seconds


def measure_peers(request: Mapping[str, Any]) -> list[Record]:
    """The race that a request describes: {"configuration", "download", "directory", "peers", "seeds", "seconds",
    "finished"}. seconds: None where `finished` holds the operator's artifacts, by seed, and its seconds count.
    """
    configuration = Configuration.model_validate(request["configuration"])
    download, seconds, seeds = Path(request["download"]), request["seconds"], request["seeds"]
    race = Race(configuration, download, Path(request["directory"]))
    with locked(race):
        entrants: dict[str, list[Trained]] = {}
        if seconds is None:
            entrants[OPERATOR] = _as_configured(request["finished"], configuration)
            seconds = entrants[OPERATOR][0].seconds
            if not seconds:
                raise ConfigurationError(
                    "the operator was not trained, and peers cannot be given its seconds",
                    where="--seconds",
                    fix="give a number of seconds",
                )
        else:
            entrants[OPERATOR] = race.run(OPERATOR, seconds, seeds)
        for name in request["peers"]:
            entrants[name] = race.run(name, seconds, seeds)
        records = _score(entrants, configuration, download, "test", outside=False)
        race.clear()
    return [*records, *race.tuning]


def measure_ablation(request: Mapping[str, Any]) -> list[Record]:
    """The ablation that a request describes: {"configuration", "download", "directory", "changed": [[name, configuration],
    ...], "seeds", "seconds", "outside"}. outside: score outside the training range too.
    """
    configuration = Configuration.model_validate(request["configuration"])
    changed = {name: Configuration.model_validate(values) for name, values in request["changed"]}
    download = Path(request["download"])
    race = Race(configuration, download, Path(request["directory"]), changed)
    with locked(race):
        entrants: dict[str, list[Trained]] = {}
        diverged = []
        for name in (OPERATOR, *changed):
            try:
                entrants[name] = race.run_as_configured(name, request["seconds"], request["seeds"])
            except NotFiniteError as error:  # that is a result too, and the others go on
                if name == OPERATOR:
                    raise
                log.info("%s: %s", name, error)
                diverged.append({"measure": "diverged", "model": name, "message": str(error)})
                continue
            errors = [trained.validation for trained in entrants[name]]
            log.info("%s: validation %.4g", name, statistics.fmean(errors))
        records = _score(entrants, configuration, download, "validation", outside=request["outside"])
        records += diverged
        race.clear()
    return records


def race_as_configured(
    configuration: Configuration, download: Path, directory: Path, peers: Sequence[str], seconds: float
) -> list[Record]:
    """Operator and peers, each by the configuration's own settings with its seed; scored on the validation split."""
    race = Race(configuration, download, directory)
    entrants = {name: race.run_as_configured(name, seconds, 1) for name in (OPERATOR, *peers)}
    return _score(entrants, configuration, download, "validation", outside=False)


@contextmanager
def locked(race: Race) -> Iterator[None]:
    """Holds the lock of a race.

    Raises:
        PreflightError: another process holds it.
    """
    race.directory.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(race.directory / LOCK, timeout=0, fallback_to_soft=False):
            yield
    except Timeout:
        raise PreflightError(
            "this race runs already", where=str(race.directory), fix="wait for its end"
        ) from None


def _as_configured(finished: list[dict[str, str]], configuration: Configuration) -> list[Trained]:
    """The operator as the pipeline trained it, by its own configuration: nothing is planned, nothing tuned."""
    trainings = []
    for artifacts in finished:
        paths = {stage: Path(path) for stage, path in artifacts.items()}
        took = training_seconds(paths["autoencoder"]) + training_seconds(paths["operator"])
        trainings.append(_trained(paths, _own(configuration), took, took))
    return trainings


def _score(
    entrants: Mapping[str, list[Trained]],
    configuration: Configuration,
    download: Path,
    split: str,
    *,
    outside: bool,
) -> list[Record]:
    """All entrants on full rollouts of a split, the forecasts that need no training, and the operator's best linear map."""
    table = []
    batch = configuration.evaluation.batch_size
    with join_ranks(configuration.execution.device, configuration.execution.threads) as ranks:
        for data in _evaluation_sets(configuration, download, split, ranks.device, outside=outside):
            about = {
                "train_trajectories": configuration.problems[data.setting.problem].counts.train,
                "rollout_steps": configuration.training.operator.rollout_steps,
            }
            untrained = [
                score(name, trivial, data.truth, data.setting, members=1, calls_per_step=0, batch=batch)
                for name, trivial in trivial_forecasts(data.inputs.steps, data.mean).items()
            ]
            model, codec = networks(entrants[OPERATOR][0], data)
            untrained += [
                _forecast(linear, codec, data, batch) for linear in linear_forecasters(model, codec.problem)
            ]
            table += [_record(result, data) | about | {"over_operator": None} for result in untrained]
            operators: list[Scores] = []
            for name, trainings in entrants.items():
                for place, trained in enumerate(trainings):
                    model, codec = networks(trained, data)
                    forecaster = operator_forecaster(OperatorForecasts(model, codec))
                    result = _forecast(replace(forecaster, name=name), codec, data, batch)
                    if name == OPERATOR:
                        operators.append(result)
                    training = {
                        "seed": configuration.seed + place,
                        "parameters": sum(parameter.numel() for parameter in model.parameters()),
                        "over_operator": None if name == OPERATOR else _compared(result, operators[place]),
                    }
                    table.append(_record(result, data) | about | training | trained.to_json())
    return table


def _evaluation_sets(
    configuration: Configuration, download: Path, split: str, device: torch.device, *, outside: bool
) -> Iterator[EvaluationSet]:
    """A split of every problem, and where asked the same outside the training range."""
    datasets = load_datasets(download, (split,))
    means = train_means(download, [name for name, data in datasets.items() if data.problem.is_map])
    beyond = configuration.evaluation.outside if outside else None
    of_the_run = {
        "seed": configuration.seed,
        "threads": configuration.execution.threads,
        "initial_steps": configuration.evaluation.pdebench_initial_steps,
    }
    for name, dataset in datasets.items():
        yield evaluation_set(name, dataset, split, device, mean=means.get(name), **of_the_run)
        data = configuration.problems[name]
        if beyond is not None and isinstance(data, FromSinusoids):
            for change in each_by_itself(beyond):
                moved = outside_dataset(dataset, data, change, device, split)
                yield evaluation_set(name, moved, OUTSIDE, device, mean=None, **of_the_run)


def _compared(scores: Scores, operator: Scores) -> Record:
    """Error over the operator's of the same seed, paired by trajectory, and its 95 % interval."""
    ratio, low, high = paired_ratio(scores.get("trajectory"), operator.get("trajectory"))
    return {
        "value": ratio if math.isfinite(ratio) else None,
        "interval": [low, high] if math.isfinite(low) else None,
    }


def _record(scores: Scores, data: EvaluationSet) -> Record:
    """One row of the table of a problem, with the conventions that the records of an evaluation repeat."""
    numbers = score_records(scores, data.setting)
    values = {number["metric"]: number["value"] for number in numbers if number["field"] is None}
    errors = {number["metric"]: number["standard_error"] for number in numbers}
    first = numbers[0]
    shared = (
        "problem",
        "model",
        "dataset",
        "data_version",
        "split",
        "n_trajectories",
        "frames",
        "resolution",
    )
    return (
        {"measure": "peers"}
        | {key: first[key] for key in (*shared, "device", "threads", "batch")}
        | {name: values[name] for name in METRICS}
        | {"standard_error": errors[METRICS[0]]}
    )


def networks(trained: Trained, data: EvaluationSet) -> tuple[LatentOperator, ProblemCodec]:
    device = data.truth.device
    codec, _ = codec_of_operator(trained.artifacts, device)
    model, _ = load_model(trained.artifacts["operator"] / MODEL_FILE, device)
    assert isinstance(model, LatentOperator)
    return model, codec.of(data.setting.problem)


def _forecast(forecaster: Forecaster, codec: ProblemCodec, data: EvaluationSet, batch: int) -> Scores:
    predict = network_predictor(codec, forecaster, data.inputs, seed=0)
    predict(2 * data.truth[:2, 0])  # the first call allocates, and is not timed
    calls = forecaster.calls_per_step
    return score(
        forecaster.name, predict, data.truth, data.setting, members=1, calls_per_step=calls, batch=batch
    )
