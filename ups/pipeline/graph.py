"""The stage graph: what each stage reads, and which settings its result is a function of."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ups.artifacts.sums import content_of_file
from ups.config import Configuration
from ups.config.schema import StageName

# When and how often a training tells about itself does not change what it learns; nor does the way in which
# its model is sampled later, which counts for evaluate.
_NOT_LEARNT = {"checkpoint_every", "log_every", "validate_every", "sampler_steps", "second_sigma"}


@dataclass(frozen=True)
class Stage:
    """One node.

    Attributes:
        inputs: stages whose artifacts it reads.
        settings: the part of a configuration that counts, as plain data.
        parallel: whether it runs under torchrun.
    """

    name: StageName
    inputs: tuple[StageName, ...]
    settings: Callable[[Configuration, Path], dict[str, Any]]
    parallel: bool = True

    @property
    def module(self) -> str:
        return f"ups.stages.{self.name}"


def _download(configuration: Configuration, root: Path) -> dict[str, Any]:
    data = configuration.data.model_dump()
    if configuration.data.source == "file":
        # A file is what it holds, wherever it lies.
        data["sha256"] = content_of_file(Path(data.pop("path")), root)
        return {"data": data}
    return {"data": data} | _machine(configuration)


def _machine(configuration: Configuration) -> dict[str, Any]:
    """What a stage without ranks computes with."""
    return {"device": configuration.execution.device, "threads": configuration.execution.threads}


def _training(configuration: Configuration, stage: str, *networks: str) -> dict[str, Any]:
    training = getattr(configuration.training, stage).model_dump()
    return {
        "training": {key: value for key, value in training.items() if key not in _NOT_LEARNT},
        "model": {name: getattr(configuration.model, name).model_dump() for name in networks},
        "execution": configuration.execution.model_dump(),
        "seed": configuration.seed,
    }


GRAPH: dict[StageName, Stage] = {
    stage.name: stage
    for stage in (
        Stage("download", (), _download, parallel=False),
        Stage(
            "autoencoder",
            ("download",),
            lambda c, _: _training(c, "autoencoder", "latent", "encoder", "decoder"),
        ),
        Stage(
            "cache_encode",
            ("download", "autoencoder"),
            lambda c, _: {"cache_encode": c.cache_encode.model_dump()} | _machine(c),
            parallel=False,
        ),
        Stage("operator", ("cache_encode",), lambda c, _: _training(c, "operator", "operator")),
        Stage(
            "diffusion",
            ("cache_encode", "operator"),
            lambda c, _: (
                _training(c, "diffusion", "denoiser")
                | {"residual_fraction": c.training.operator.residual_fraction}
            ),
        ),
        Stage(
            "consistency",
            ("cache_encode", "operator", "diffusion"),
            lambda c, _: (
                _training(c, "consistency")
                | {
                    "residual_fraction": c.training.operator.residual_fraction,
                    "noise": c.training.diffusion.noise.model_dump(),
                    "rollout": [c.training.diffusion.rollout_fraction, c.training.diffusion.rollout_steps],
                }
            ),
        ),
        Stage(
            "evaluate",
            ("download", "autoencoder", "cache_encode", "operator", "diffusion", "consistency"),
            lambda c, _: (
                {
                    "evaluation": c.evaluation.model_dump(),
                    "noise": c.training.diffusion.noise.model_dump(),
                    "sampler_steps": c.training.diffusion.sampler_steps,
                    "second_sigma": c.training.consistency.second_sigma,
                }
                | _machine(c)
            ),
            parallel=False,
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
