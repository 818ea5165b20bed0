"""operator: the PDE transformer on cached latents."""

import torch
from torch import Tensor, nn

from ups.inference.forecaster import operator_forecaster
from ups.inference.rollout import decoded_rollout
from ups.losses.relative import relative_l2_per_field
from ups.models.build import Description, load_codec
from ups.models.operator import LatentOperator
from ups.models.token_grid import cell_centres
from ups.objectives.operator import LatentForecast
from ups.runtime.ranks import Ranks, join_ranks
from ups.runtime.request import Request
from ups.stages.latents import LatentProblem, open_problems, window_source
from ups.stages.training import initial_model, latent_description, train_and_publish
from ups.training.loop import Validation


def run(request: Request) -> None:
    """Train on windows of the fitted train trajectories; validate on full decoded rollouts."""
    configuration = request.configuration
    settings = configuration.training.operator
    with join_ranks(configuration.execution.device, configuration.execution.threads) as ranks:
        codec, codec_description = load_codec(request.inputs["cache_encode"], ranks.device)
        problems = open_problems(request.inputs, configuration, codec, ranks)
        description: Description = latent_description("operator", codec_description) | {
            "network": configuration.model.operator.model_dump()
        }
        with window_source(
            problems,
            configuration,
            ranks,
            stage=request.stage,
            batch_size=settings.batch_size,
            length=settings.rollout_steps + 1,
        ) as (source, loading):
            train_and_publish(
                initial_model(description, request, ranks),
                description,
                LatentForecast(
                    codec,
                    codec.shapes,
                    field_weight=settings.field_weight,
                    query_points=settings.query_points,
                    device=ranks.device,
                ),
                source,
                rollout_validation(problems, ranks),
                settings,
                request,
                ranks,
                told={"loading": loading},
            )


def rollout_validation(problems: dict[str, LatentProblem], ranks: Ranks) -> Validation:
    """Full rollouts of the validation split, decoded, against its fields."""
    truths = {
        name: torch.from_numpy(problem.fields("validation")[ranks.rank :: ranks.world]).to(ranks.device)
        for name, problem in problems.items()
    }

    def errors(model: nn.Module) -> dict[str, Tensor]:
        assert isinstance(model, LatentOperator)
        return {name: _errors(model, problems[name], truth) for name, truth in truths.items()}

    return Validation("validation_relative_l2", errors)


def _errors(model: LatentOperator, problem: LatentProblem, truth: Tensor) -> Tensor:
    """Trajectory relative L2 of each rollout, mean over scored fields, [n]."""
    if len(truth) == 0:
        return torch.zeros(0)
    codec = problem.codec
    known = torch.from_numpy(problem.known[0]).to(truth.device)
    frames = decoded_rollout(
        operator_forecaster(model, codec.problem).step,
        codec,
        truth[:, 0],
        None if problem.known[0].all() else known,
        torch.tensor(problem.scalars, dtype=torch.float32, device=truth.device),
        truth.shape[1] - 1,
        cell_centres(codec.shape.grid).to(truth.device),
        generator=torch.Generator(truth.device),
    )
    scored = list(codec.shape.scored)
    return relative_l2_per_field(frames[:, 0][..., scored], truth[:, 1:].flatten(2, -2)[..., scored]).mean(
        dim=1
    )
