"""diffusion: a denoiser of the operator's residual."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ups.config import Configuration
from ups.data.cache import LatentCache, open_cache
from ups.models.build import MODEL_FILE, load_model
from ups.models.operator import LatentOperator
from ups.objectives import Objective
from ups.objectives.diffusion import ResidualDenoising
from ups.runtime.randomness import torch_generator
from ups.runtime.ranks import Ranks, join_ranks
from ups.runtime.request import Request
from ups.stages.operator import latent_description
from ups.stages.training import initial_model, train_and_publish
from ups.training.residuals import ResidualSource

_VALIDATION_EXAMPLES = 512


@dataclass(frozen=True)
class ResidualData:
    """What diffusion and consistency training read: residuals to fit, and others to validate on."""

    cache: LatentCache
    operator: LatentOperator
    source: ResidualSource
    validation: ResidualSource


def run(request: Request) -> None:
    """Train on residuals of held-out train trajectories; validate on the validation split."""
    configuration = request.configuration
    settings = configuration.training.diffusion
    with join_ranks(configuration.execution.device, configuration.execution.threads) as ranks:
        data = residual_data(request.inputs, configuration, ranks, batch_size=settings.batch_size)
        _, operator_description = load_model(request.inputs["operator"] / MODEL_FILE)
        description = latent_description("diffusion", operator_description, data.cache) | {
            "network": configuration.model.denoiser.model_dump()
        }
        model = initial_model(description, request, ranks)
        model.get_buffer("residual_deviation").copy_(data.source.residual_deviation())
        objective = ResidualDenoising(
            mean_log_sigma=settings.noise.mean_log_sigma, std_log_sigma=settings.noise.std_log_sigma
        )
        validate = validation_loss(objective, data.validation, request, ranks)
        train_and_publish(model, description, objective, data.source, validate, settings, request, ranks)


def residual_data(
    inputs: dict[str, Path], configuration: Configuration, ranks: Ranks, *, batch_size: int
) -> ResidualData:
    """The operator's residuals on the trajectories that it did not fit."""
    cache = open_cache(inputs["cache_encode"])
    operator, _ = load_model(inputs["operator"] / MODEL_FILE, ranks.device)
    assert isinstance(operator, LatentOperator)
    _, held_out = cache.fitted_and_held_out(configuration.training.operator.residual_fraction)
    settings = configuration.training.diffusion
    scalars = torch.tensor(cache.attributes["scalars"], device=ranks.device)

    def source(rows: np.ndarray) -> ResidualSource:
        latents: Tensor = torch.from_numpy(cache.latents[rows].astype(np.float32)).to(ranks.device)
        return ResidualSource(
            operator,
            latents,
            scalars,
            rollout_steps=settings.rollout_steps,
            rollout_fraction=settings.rollout_fraction,
            seed=configuration.seed,
            batch_size=batch_size,
            rank=ranks.rank,
            world=ranks.world,
        )

    return ResidualData(cache, operator, source(held_out), source(cache.rows("validation")))


def validation_loss(
    objective: Objective, source: ResidualSource, request: Request, ranks: Ranks
) -> Callable[[nn.Module], dict[str, float]]:
    """The objective on a fixed batch with fixed noise: comparable between steps."""
    batch = source.everything(_VALIDATION_EXAMPLES)

    def validate(model: nn.Module) -> dict[str, float]:
        generator = torch_generator(
            request.configuration.seed, request.stage, "validation", device=ranks.device
        )
        return {"validation_loss": objective(model, batch, generator).total.item()}

    return validate
