"""diffusion: settings of its training."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Self

from pydantic import Field, model_validator

from ups.config.sizes import HEADER_BYTES, KeptShape, training_bytes
from ups.config.stage import Stage, latent_training_settings, operator_modules, training_modules
from ups.config.training import Training
from ups.problems.generated import LEARNT_SPLITS
from ups.section import Count, Positive, Section

if TYPE_CHECKING:
    from ups.config.schema import Configuration

RESIDUAL_TRAJECTORIES = 128
"""Residuals of the operator that are kept for the ensembles that past errors make, at most."""


class NoiseLevels(Section):
    """Noise of the residual diffusion, in units of the residual's deviation. Samplers start from pure noise."""

    sigma_min: Positive = Field(default=0.05, description="last level of the samplers")
    centre: Positive = Field(
        default=3.0,
        description="level around which training noise is log-normal and the samplers' levels are dense",
    )
    std_log_sigma: Positive = Field(default=1.4, description="deviation of the logarithm of training noise")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.sigma_min >= self.centre:
            raise ValueError(f"sigma_min {self.sigma_min:g} must be below centre {self.centre:g}: lower it")
        return self


class DiffusionTraining(Training):
    """Denoising of the operator's residual."""

    noise: NoiseLevels = NoiseLevels()
    sampler_steps: Count = Field(default=8, ge=2, description="steps; 2 * steps - 1 network calls")


def denoiser_weights(configuration: "Configuration", shapes: Mapping[str, KeptShape]) -> int:
    """Weights and statistics of the network that corrects whole forecasts, at most a third above their number."""
    size, dim = configuration.model.denoiser, configuration.model.latent.dim
    axes = {len(data.problem.axes) for data in configuration.problems.values()}
    hidden = size.blocks * len(axes) * size.width**2
    hidden += size.blocks * len(size.dilations) * sum(3**n + 3 for n in axes) * size.width**2
    ends = size.leads_per_position * (3 * dim + 1) * size.width
    embeddings = len({data.problem.name for data in configuration.problems.values()}) * (
        size.width**2 + 60 * size.width
    )
    return hidden + ends + embeddings + sum(shape.frames * (3 * dim + 4) for shape in shapes.values())


def _forecast_bytes(configuration: "Configuration", shapes: Mapping[str, KeptShape]) -> int:
    """The operator's forecasts of what it did not fit, and residuals of some of them, twice."""
    dim, fraction = configuration.model.latent.dim, configuration.training.operator.residual_fraction
    total = 2 * HEADER_BYTES
    for name, shape in shapes.items():
        data = configuration.problems[name]
        leads = 1 if data.problem.is_map else shape.frames - 1
        tokens = leads * configuration.tokens(name) ** len(shape.grid)
        held_out = round(data.counts.train * fraction)
        total += 2 * 4 * min(held_out, RESIDUAL_TRAJECTORIES) * tokens * dim
        total += 4 * (held_out + data.counts.validation) * tokens * (dim + 1)
    return total


def _bytes(configuration: "Configuration", shapes: Mapping[str, KeptShape], _: Mapping[str, int]) -> int:
    training = training_bytes(denoiser_weights(configuration, shapes), len(shapes))
    return training + _forecast_bytes(configuration, shapes)


STAGE = Stage(
    "diffusion",
    inputs=("download", "cache_encode", "operator"),
    settings=lambda c, _: (
        latent_training_settings(c, "diffusion", "denoiser")
        | {"residual_trajectories": RESIDUAL_TRAJECTORIES}
    ),
    bytes=_bytes,
    section=("training.diffusion", DiffusionTraining),
    splits=lambda _: LEARNT_SPLITS,
    found_by_name=lambda c: [*training_modules(c, "diffusion"), *operator_modules(c)],
)
