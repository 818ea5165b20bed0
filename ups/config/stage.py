"""What is known of a stage before it runs: what it reads, what its result is a function of, and how much it writes.

Each stage says so in a file of its own in `ups/config/stages`, beside its settings; what it does is in the file of the same
name in `ups/stages`. Both are found by the name.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from graphlib import TopologicalSorter
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ups.config.sizes import KeptShape
from ups.config.training import Training
from ups.kinds import kind_of, kinds_of, module_of
from ups.section import Section

if TYPE_CHECKING:
    from ups.config.model import SymmetryUse
    from ups.config.schema import Configuration

ContentOf = Callable[[Path], str]
"""The sha256 of a file."""

# When and how often a training reports does not change what it learns.
_NOT_LEARNT = {"checkpoint_every", "log_every", "validate_every"}


@dataclass(frozen=True)
class Stage:
    """One stage of the chain: `STAGE` in its file.

    Attributes:
        name: of its files.
        inputs: stages whose artifacts it reads.
        settings: the part of a configuration that its result is a function of, as plain data. A constant of `ups.config`
            that changes a result belongs here too: this package is not part of a stage's code.
        bytes: of a configuration, the shapes of its problems and the trajectories of each that are still to be made: bytes
            of its artifact and of what lies beside it while it works.
        section: where a configuration has its settings, and what they are; None: it has none of its own.
        splits: of a configuration, those that it reads of the trajectories.
        parallel: whether it runs under torchrun.
        found_by_name: modules that it imports by names that the configuration gives, beside the equations.
    """

    name: str
    inputs: tuple[str, ...]
    settings: "Callable[[Configuration, ContentOf], dict[str, Any]]"
    bytes: "Callable[[Configuration, Mapping[str, KeptShape], Mapping[str, int]], int]"
    section: tuple[str, type[Section]] | None = None
    splits: "Callable[[Configuration], tuple[str, ...]]" = lambda _: ()
    parallel: bool = True
    found_by_name: "Callable[[Configuration], list[str]]" = lambda _: []

    @property
    def trains(self) -> bool:
        """Whether it is a training."""
        return self.section is not None and issubclass(self.section[1], Training)

    def own(self, configuration: "Configuration") -> Any:
        """The section that it has in a configuration."""
        assert self.section is not None
        return attrgetter(self.section[0])(configuration)

    def modules(self, configuration: "Configuration") -> tuple[str, ...]:
        """Whose code, with all that it imports, the result is a function of."""
        equations = (data.declaration for data in configuration.problems.values())
        return f"ups.stages.{self.name}", *sorted({*equations, *self.found_by_name(configuration)})


def all_stages() -> dict[str, Stage]:
    """All stages by name, each behind what it reads.

    Raises:
        TypeError: one has another name than its file.
        ValueError: see `in_order`.
    """
    found = {name: module_of("ups.config.stages", name).STAGE for name in kinds_of("ups.config.stages")}
    for name, stage in found.items():
        if stage.name != name:
            raise TypeError(f"ups/config/stages/{name}.py: STAGE is called {stage.name!r}")
    return in_order(found)


def in_order(stages: Mapping[str, Stage]) -> dict[str, Stage]:
    """Each stage behind what it reads.

    Raises:
        ValueError: one reads what is no stage, or stages wait for each other.
    """
    for name, stage in stages.items():
        if unknown := set(stage.inputs) - stages.keys():
            raise ValueError(f"ups/config/stages/{name}.py: there is no stage {', '.join(sorted(unknown))}")
    order = TopologicalSorter({name: stage.inputs for name, stage in stages.items()}).static_order()
    return {name: stages[name] for name in order}


LAYOUT = ("processes", "threads", "data_parallel")
"""Of the settings below, what decides in which order numbers are added up, and may change in the middle of a training."""


def execution_settings(configuration: "Configuration") -> dict[str, Any]:
    """What counts of how stages run: neither what gives the same numbers, nor what is asked for in the middle of a training."""
    execution = configuration.execution
    counted = execution.model_dump(exclude={"cuda_graphs", "allow_layout_change", "nodes"})
    return counted | {"processes": execution.ranks}  # in all, wherever they are


def training_settings(configuration: "Configuration", stage: str, *networks: str) -> dict[str, Any]:
    """What a training learns by.

    networks: sections of `model` that it builds.
    """
    training = getattr(configuration.training, stage).model_dump()
    if "loss_terms" in training:  # those that are not chosen do not count: one more kind is no other training
        training["loss_terms"] = {
            kind: own for kind, own in training["loss_terms"].items() if own is not None
        }
    not_learnt = _NOT_LEARNT
    follows = training["publish"] == "best" or training["early_stop"] is not None
    if configuration.sampling == "difficulty_weighted" or follows:
        not_learnt = _NOT_LEARNT - {"validate_every"}  # what is done at a validation changes what is learnt
    return {
        "training": {key: value for key, value in training.items() if key not in not_learnt},
        "model": {name: getattr(configuration.model, name).model_dump() for name in networks},
        "execution": execution_settings(configuration),
        "seed": configuration.seed,
        "sampling": configuration.sampling,
    }


def latent_training_settings(configuration: "Configuration", stage: str, *networks: str) -> dict[str, Any]:
    """What a training on latents learns by. Ways of loading that give the same bits do not count."""
    return training_settings(configuration, stage, *networks) | {
        "encoded_on_the_fly": encoded_on_the_fly(configuration),
        "residual_fraction": configuration.training.operator.residual_fraction,
    }


def encoded_on_the_fly(configuration: "Configuration") -> bool:
    return configuration.loading.mode == "encode"


def symmetries_used(configuration: "Configuration", how: "SymmetryUse") -> dict[str, list[str]]:
    """By problem."""
    return {name: list(configuration.symmetries(name).used(how)) for name in configuration.problems}


def training_modules(configuration: "Configuration", stage: str) -> list[str]:
    """What a training takes by name."""
    training = getattr(configuration.training, stage)
    terms = getattr(training, "loss_terms", None)
    return [
        f"ups.training.optimizers.{kind_of(training.optimizer)}",
        f"ups.training.schedules.{kind_of(training.schedule)}",
        *(f"ups.losses.terms.{kind}" for kind, chosen in terms or () if chosen is not None),
    ]


def operator_modules(configuration: "Configuration") -> list[str]:
    """What a stage that builds or loads the operator takes by name, its codec's encoder included."""
    return [f"ups.models.operators.{kind_of(configuration.model.operator)}", *encoder_modules(configuration)]


def encoder_modules(configuration: "Configuration") -> list[str]:
    """What a stage that builds or loads the encoder takes by name."""
    return [f"ups.models.encoders.{kind_of(configuration.model.encoder)}"]
