"""The stage graph: what each stage reads, and which settings its result is a function of."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ups.artifacts.sums import content_of_file
from ups.config import Configuration
from ups.config.data import DataFile, PublishedData
from ups.config.schema import StageName, SymmetryUse
from ups.kinds import kind_of
from ups.problems.generated import LEARNT_SPLITS, SPLITS, FromSinusoids, Generated, ProblemData

# When and how often a training tells about itself does not change what it learns.
_NOT_LEARNT = {"checkpoint_every", "log_every", "validate_every"}


@dataclass(frozen=True)
class Stage:
    """One node.

    Attributes:
        inputs: stages whose artifacts it reads.
        splits: those that it reads of the trajectories.
        settings: the part of a configuration that counts, as plain data.
        parallel: whether it runs under torchrun.
        found_by_name: modules that it imports by names that the configuration gives, beside the equations.
    """

    name: StageName
    inputs: tuple[StageName, ...]
    settings: Callable[[Configuration, Path], dict[str, Any]]
    splits: tuple[str, ...] = ()
    parallel: bool = True
    found_by_name: Callable[[Configuration], list[str]] = lambda _: []

    def modules(self, configuration: Configuration) -> tuple[str, ...]:
        """Whose code, with all that it imports, the result is a function of."""
        equations = (data.declaration for data in configuration.problems.values())
        return f"ups.stages.{self.name}", *sorted({*equations, *self.found_by_name(configuration)})


def _download(configuration: Configuration, root: Path) -> dict[str, Any]:
    return {
        "data": {
            name: how_read(data)
            | {
                "source": _source(data, configuration, root),
                "splits": {split: _split(data, split) for split in SPLITS},
            }
            for name, data in configuration.problems.items()
        }
    }


def how_read(data: ProblemData) -> dict[str, Any]:
    """What the stages take of a problem's trajectories."""
    return {"stride": data.stride, "variables": data.used_variables()}


def _source_modules(configuration: Configuration) -> list[str]:
    return [module for data in configuration.problems.values() for module in data.source_modules]


def _generators_outside(configuration: Configuration) -> list[str]:
    """Of the problems that evaluation solves itself, outside the training range."""
    if configuration.evaluation.outside is None:
        return []
    data = configuration.problems.values()
    return [each.generator for each in data if isinstance(each, FromSinusoids)]


def _operator(configuration: Configuration) -> list[str]:
    """Of the network that a training trains, or loads."""
    return [f"ups.models.operators.{kind_of(configuration.model.operator)}"]


def _learning(stage: str) -> Callable[[Configuration], list[str]]:
    """What one training learns by, in what network."""

    def found(configuration: Configuration) -> list[str]:
        training = getattr(configuration.training, stage)
        terms = getattr(training, "loss_terms", None)
        return [
            f"ups.training.optimizers.{kind_of(training.optimizer)}",
            f"ups.training.schedules.{kind_of(training.schedule)}",
            *(f"ups.losses.terms.{kind}" for kind, chosen in terms or () if chosen is not None),
            *(_operator(configuration) if stage != "autoencoder" else ()),
        ]

    return found


def _source(data: ProblemData, configuration: Configuration, root: Path) -> dict[str, Any]:
    """What the trajectories of all splits of a problem are a function of."""
    settings = data.model_dump(exclude={"resolution", "space_stride", "variables", "trajectories", "rows"})
    match data:
        case Generated():
            # Threads solve blocks, which do not depend on them.
            settings["device"] = configuration.execution.device
        case DataFile():
            # A file is what it holds, wherever it lies.
            settings["sha256"] = content_of_file(Path(settings.pop("path")), root)
        case PublishedData():
            # A published file is its sum, wherever it comes from and however long that may take.
            settings["md5"] = data.published.md5
            del settings["address"], settings["deadline_hours"]
    return settings


def _split(data: ProblemData, split: str) -> dict[str, Any]:
    """Which of them a split has."""
    if isinstance(data, PublishedData) and data.rows is not None:
        return {"rows": data.rows.by_split()[split]}
    settings = {"trajectories": getattr(data.counts, split)}
    if isinstance(data, DataFile) and data.test_first is None and split == "validation":
        settings["test_trajectories"] = data.counts.test  # they come first
    return settings


def _machine(configuration: Configuration) -> dict[str, Any]:
    """What a stage without ranks computes with."""
    settings = _execution(configuration)
    return {key: settings[key] for key in ("device", "threads") if key in settings}


def _execution(configuration: Configuration) -> dict[str, Any]:
    """What counts of how stages run; not the layout, where it may change under way."""
    execution = configuration.execution
    return execution.model_dump(exclude={"processes", "threads"} if execution.allow_layout_change else None)


def _training(configuration: Configuration, stage: str, *networks: str) -> dict[str, Any]:
    training = getattr(configuration.training, stage).model_dump()
    if "loss_terms" in training:  # those that are not chosen do not count: one more kind is no other training
        training["loss_terms"] = {
            kind: own for kind, own in training["loss_terms"].items() if own is not None
        }
    not_learnt = _NOT_LEARNT
    if configuration.sampling == "difficulty_weighted":
        not_learnt = _NOT_LEARNT - {"validate_every"}  # the weights of the problems change at validations
    return {
        "training": {key: value for key, value in training.items() if key not in not_learnt},
        "model": {name: getattr(configuration.model, name).model_dump() for name in networks},
        "execution": _execution(configuration),
        "seed": configuration.seed,
        "sampling": configuration.sampling,
    }


def _codec(configuration: Configuration) -> dict[str, Any]:
    """Without steps the codec is the linear one, whatever the seed and the other settings of a training."""
    settings = _training(configuration, "autoencoder", "latent", "encoder", "decoder")
    if not configuration.training.autoencoder.steps:
        settings = {name: settings[name] for name in ("model", "execution")} | {"steps": 0}
    return settings | {"order": configuration.loading.order, "exact": _symmetries(configuration, "exact")}


def _symmetries(configuration: Configuration, how: SymmetryUse) -> dict[str, list[str]]:
    return {name: list(configuration.symmetries(name).used(how)) for name in configuration.problems}


def _encoded_on_the_fly(configuration: Configuration) -> bool:
    return configuration.loading.mode == "encode"


def _on_latents(configuration: Configuration, stage: str, *networks: str) -> dict[str, Any]:
    """Of a training behind the cache. The other ways of loading give the same bits, and do not count."""
    return _training(configuration, stage, *networks) | {
        "encoded_on_the_fly": _encoded_on_the_fly(configuration),
        "residual_fraction": configuration.training.operator.residual_fraction,
    }


GRAPH: dict[StageName, Stage] = {
    stage.name: stage
    for stage in (
        Stage("download", (), _download, parallel=False, found_by_name=_source_modules),
        Stage(
            "autoencoder",
            ("download",),
            lambda c, _: _codec(c),
            LEARNT_SPLITS,
            found_by_name=_learning("autoencoder"),
        ),
        Stage(
            "cache_encode",
            ("download", "autoencoder"),
            # The encoder's latents are the same for any number of ranks and threads.
            lambda c, _: {
                "cache_encode": c.cache_encode.model_dump(),
                "encoded_on_the_fly": _encoded_on_the_fly(c),
                "device": c.execution.device,
            },
            LEARNT_SPLITS,
        ),
        Stage(
            "operator",
            ("download", "cache_encode"),
            lambda c, _: (
                _on_latents(c, "operator", "operator")
                | {
                    "order": c.loading.order,
                    "augment": _symmetries(c, "augment"),
                    "average": _symmetries(c, "average"),
                }
            ),
            LEARNT_SPLITS,
            found_by_name=_learning("operator"),
        ),
        Stage(
            "diffusion",
            ("download", "cache_encode", "operator"),
            lambda c, _: _on_latents(c, "diffusion", "denoiser"),
            LEARNT_SPLITS,
            found_by_name=_learning("diffusion"),
        ),
        Stage(
            "consistency",
            ("download", "cache_encode", "operator", "diffusion"),
            lambda c, _: _on_latents(c, "consistency") | {"noise": c.training.diffusion.noise.model_dump()},
            LEARNT_SPLITS,
            found_by_name=_learning("consistency"),
        ),
        Stage(
            "evaluate",
            ("download", "autoencoder", "cache_encode", "operator", "diffusion", "consistency"),
            lambda c, _: {"evaluation": c.evaluation.model_dump()} | _machine(c),
            ("train", "test"),  # the train split's mean is a map's trivial forecast
            parallel=False,
            found_by_name=lambda c: [*_operator(c), *_generators_outside(c)],
        ),
    )
}


def chain_to(stage: StageName) -> list[StageName]:
    """The stages that a stage needs, itself last, in order of execution."""
    needed = {stage}
    for name in reversed(GRAPH):
        if name in needed:
            needed |= set(GRAPH[name].inputs)
    return [name for name in GRAPH if name in needed]
