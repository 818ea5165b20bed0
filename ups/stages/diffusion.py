"""diffusion: a denoiser of the operator's residual."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ups.data.splits import fitted_and_held_out
from ups.models.build import MODEL_FILE, Description, load_codec, load_model
from ups.models.operator import LatentOperator
from ups.models.residual import ResidualNetwork
from ups.objectives import Objective
from ups.objectives.diffusion import ResidualDenoising
from ups.runtime.randomness import torch_generator
from ups.runtime.ranks import Ranks, join_ranks
from ups.runtime.request import Request
from ups.stages.latents import LatentProblem, open_problems
from ups.stages.training import initial_model, latent_description, train_and_publish
from ups.training.loop import Validation
from ups.training.residuals import Residuals, ResidualSource

_VALIDATION_EXAMPLES = 512


@dataclass(frozen=True)
class ResidualData:
    """What diffusion and consistency training read: residuals to fit, others to validate on, and the codec."""

    codec: Description
    source: ResidualSource
    validation: dict[str, Residuals]


def run(request: Request) -> None:
    """Train on residuals of held-out train trajectories; validate on the validation split."""
    configuration = request.configuration
    settings = configuration.training.diffusion
    with join_ranks(configuration.execution.device, configuration.execution.threads) as ranks:
        data = residual_data(request, ranks, batch_size=settings.batch_size)
        description = latent_description("diffusion", data.codec) | {
            "network": configuration.model.denoiser.model_dump()
        }
        model = initial_model(description, request, ranks)
        assert isinstance(model, ResidualNetwork)
        for name, residuals in data.source.problems.items():
            model.deviation(name).copy_(residuals.deviation())
        objective = ResidualDenoising(
            mean_log_sigma=settings.noise.mean_log_sigma, std_log_sigma=settings.noise.std_log_sigma
        )
        validation = loss_validation(objective, data.validation, request, ranks)
        train_and_publish(model, description, objective, data.source, validation, settings, request, ranks)


def residual_data(request: Request, ranks: Ranks, *, batch_size: int) -> ResidualData:
    """The operator's residuals on the trajectories that it did not fit."""
    configuration = request.configuration
    codec, description = load_codec(request.inputs["cache_encode"], ranks.device)
    operator, _ = load_model(request.inputs["operator"] / MODEL_FILE, ranks.device)
    assert isinstance(operator, LatentOperator)
    problems = open_problems(request.inputs, configuration, codec, ranks)
    settings = configuration.training.diffusion

    def residuals(name: str, problem: LatentProblem, rows: NDArray[np.int64]) -> Residuals:
        return Residuals(
            name,
            operator,
            problem.latents(rows),
            torch.tensor(problem.scalars, dtype=torch.float32, device=ranks.device),
            rollout_steps=settings.rollout_steps,
            rollout_fraction=settings.rollout_fraction,
        )

    fraction = configuration.training.operator.residual_fraction
    source = ResidualSource.of(
        {
            name: residuals(name, problem, fitted_and_held_out(problem.rows("train"), fraction)[1])
            for name, problem in problems.items()
        },
        sampling=configuration.sampling,
        seed=configuration.seed,
        purpose=request.stage,
        batch_size=batch_size,
        rank=ranks.rank,
        world=ranks.world,
    )
    validation = {
        name: residuals(name, problem, problem.rows("validation")) for name, problem in problems.items()
    }
    return ResidualData(description, source, validation)


def loss_validation(
    objective: Objective, problems: dict[str, Residuals], request: Request, ranks: Ranks
) -> Validation:
    """The objective on a fixed batch of each problem with fixed noise: comparable between steps.

    A rank's share gives its mean, once for each of its examples, so that shares are weighted by their size.
    """
    batches = {
        name: residuals.take(residuals.spread(_VALIDATION_EXAMPLES)[ranks.rank :: ranks.world])
        for name, residuals in problems.items()
    }

    def errors(model: nn.Module) -> dict[str, Tensor]:
        found = {}
        for name, batch in batches.items():
            seed, examples = request.configuration.seed, len(batch.scalars)
            if examples == 0:
                found[name] = torch.zeros(0)
                continue
            key = (seed, request.stage, "validation", name, ranks.rank)
            loss = objective(model, batch, torch_generator(*key, device=ranks.device)).total
            found[name] = loss.expand(examples)
        return found

    return Validation("validation_loss", errors)
