"""operator: one time step, on cached latents."""

import hashlib
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ups.config.networks import OperatorSettings
from ups.config.stages.operator import JointTraining, OperatorTraining
from ups.data.dataset import Dataset, load_datasets
from ups.data.problem_inputs import known_mask, scalars_tensor
from ups.data.splits import fitted_and_held_out
from ups.errors import ConfigurationError
from ups.evaluation.forecaster import single_forecaster
from ups.evaluation.rollout import decoded_rollout
from ups.losses.relative import relative_l2_per_field
from ups.models.build import CODEC_FILE, Description, load_codec, save_model
from ups.models.codec import Codec, ProblemCodec
from ups.models.evolution import Evolution
from ups.models.operators import LatentOperator
from ups.models.operators.linear import LeastSquares, LinearPath
from ups.runtime.ranks import Ranks, join_ranks
from ups.runtime.request import Request
from ups.training.latents import LatentProblem, open_problems, window_source
from ups.training.loop import Validation
from ups.training.objectives.joint import JointLoss, JointModel, JointSettings
from ups.training.objectives.operator import RolloutLoss
from ups.training.train import initial_model, latent_description, train_and_publish

log = logging.getLogger(__name__)

_FITTED_TRAJECTORIES = 1024  # that the linear path is fitted on, at most
_FITTED_AT_ONCE = 64


def run(request: Request) -> None:
    """Train on windows of the fitted train trajectories; validate on full decoded rollouts."""
    configuration = request.configuration
    settings = configuration.training.operator
    with join_ranks(configuration.execution.device, configuration.execution.threads) as ranks:
        codec, codec_description = load_codec(request.inputs["cache_encode"], ranks.device)
        problems = open_problems(request.inputs, configuration, codec, ranks)
        chosen = configuration.model.operator
        description: Description = latent_description("operator", codec_description) | {
            "network": chosen.model_dump(exclude=set(OperatorSettings.model_fields)),
            "linear_path": {
                name: configuration.linear_path(name)
                for name in problems
                if configuration.linear_path(name) != "none"
            },
            "conserve": chosen.conserve,
            "time_steps": list(settings.time_steps),
            "average": {name: list(configuration.symmetries(name).used("average")) for name in problems},
        }
        for name, problem in problems.items():
            if configuration.linear_path(name) == "exact" and problem.codec.shape.boundary != "periodic":
                raise ConfigurationError(
                    f"the data of {name} have walls, and diffusion is solved exactly between periodic ends alone",
                    where="model.operator.linear_path",
                    fix="write none",
                )
        model = initial_model(description, request, ranks)
        assert isinstance(model, LatentOperator)
        for name, problem in problems.items():
            model.set_from_codec(problem.codec, frozen=settings.joint is None)
            if model.has_linear(name):
                fit_linear(model, name, problem, configuration.training.operator.residual_fraction)
            elif configuration.linear_path(name) != "none":
                # The file said another boundary than the configuration could know.
                raise ConfigurationError(
                    f"the data of {name} have walls, and its linear map would be too large a matrix",
                    where="model.operator.linear_path",
                    fix="write none, or lower tokens or dim",
                )
        evolutions = {
            name: problem.evolution(configuration.symmetries(name).used("augment", "average"))
            for name, problem in problems.items()
        }
        objective = rollout_error(codec, evolutions, settings, seed=configuration.seed)
        trained: nn.Module = model
        finish: Callable[[], None] | None = None
        if settings.joint is not None:
            trained = JointModel(model, codec)
            moving = rollout_error(codec, evolutions, settings, seed=configuration.seed, of_fields=True)
            objective = JointLoss(objective, moving, joint_settings(settings.joint, settings.steps))
            finish = partial(_publish_codec, codec, codec_description, description, request, ranks)

        learnt = {
            name: problem for name, problem in problems.items() if configuration.linear_path(name) != "alone"
        }
        with window_source(
            learnt,
            configuration,
            ranks,
            stage=request.stage,
            batch_size=settings.batch_size,
            length=settings.pushforward_steps + settings.rollout_steps + 1,
            strides=settings.time_steps,
        ) as (source, loading):
            train_and_publish(
                trained,
                description,
                objective,
                source,
                rollout_validation(codec, request.inputs["download"], ranks),
                settings,
                request,
                ranks,
                summary={"loading": loading},
                finish=finish,
                written=model,
            )


def _publish_codec(
    codec: Codec, before: Description, operator: Description, request: Request, ranks: Ranks
) -> None:
    """Write the codec that has moved, and tell the operator's description which it is.

    Its latents are others than those of the cache, and nobody may mix them up: it is named by its weights.
    """
    weights = hashlib.sha256()
    for name, values in sorted(codec.state_dict().items()):
        weights.update(name.encode() + values.cpu().contiguous().numpy().tobytes())
    operator["codec"] = f"{before['codec']}-{weights.hexdigest()[:12]}"
    if ranks.is_first:
        save_model(request.output / CODEC_FILE, codec, before | {"codec": operator["codec"]})


def rollout_error(
    codec: Codec,
    evolutions: dict[str, Evolution],
    settings: OperatorTraining,
    *,
    seed: int,
    of_fields: bool = False,
) -> RolloutLoss:
    """The operator's objective, by the configuration."""
    return RolloutLoss(
        codec,
        evolutions,
        rollout_steps=settings.rollout_steps,
        rollout_start=round(settings.steps * (settings.curriculum or 0)),
        pushforward_steps=settings.pushforward_steps,
        state_noise=settings.state_noise,
        norm=settings.norm,
        terms=settings.loss_terms.model_dump(exclude_none=True),
        of_fields=of_fields,
        seed=seed,
    )


def joint_settings(joint: JointTraining, steps: int) -> JointSettings:
    """Shares of a training as steps."""
    return JointSettings(
        start=round(steps * joint.begin),
        encoder_weight=joint.encoder_weight,
        decoder_weight=joint.decoder_weight,
        ramp=round(steps * (joint.ramp or 0)),
        every=joint.every,
        queries=joint.queries,
    )


def fit_linear(model: LatentOperator, name: str, problem: LatentProblem, residual_fraction: float) -> None:
    """Fit a problem's linear path on pairs of the fitted trajectories, each relative to its later state's field."""
    path = model.linear_of(name)
    assert isinstance(path, LinearPath)
    rows, _ = fitted_and_held_out(problem.rows("train"), residual_fraction)
    rows = rows[:_FITTED_TRAJECTORIES]
    sums = LeastSquares(path)
    scored = problem.codec.shape.scored_fields
    for part in np.array_split(rows, -(-len(rows) // _FITTED_AT_ONCE)):
        latents = problem.latents(part)
        after = torch.from_numpy(problem.rows_fields(part)[:, 1:]).to(latents)
        norm = scored(after).flatten(2).norm(dim=2).clamp_min(torch.finfo(after.dtype).tiny)
        sums.add(latents[:, :-1].flatten(0, 1), latents[:, 1:].flatten(0, 1), 1 / norm.flatten())
    sums.fit()
    log.info("%s: linear path fitted on %d trajectories", name, len(rows))


def rollout_validation(codec: Codec, download: Path, ranks: Ranks) -> Validation:
    """Full rollouts of the validation split, decoded, against the fields as they were downloaded.

    The cache's float16 are as coarse as the errors of a good operator.
    """
    datasets = load_datasets(download, ("validation",))
    truths = {
        name: torch.from_numpy(dataset.split("validation")[ranks.rank :: ranks.world]).to(ranks.device)
        for name, dataset in datasets.items()
    }

    def errors(model: nn.Module) -> dict[str, Tensor]:
        model = model.operator if isinstance(model, JointModel) else model
        assert isinstance(model, LatentOperator)
        return {name: _errors(model, codec.of(name), datasets[name], truth) for name, truth in truths.items()}

    return Validation("validation_relative_l2", errors)


def _errors(model: LatentOperator, codec: ProblemCodec, dataset: Dataset, truth: Tensor) -> Tensor:
    """Trajectory relative L2 of each rollout, mean over scored fields, [n]."""
    if len(truth) == 0:
        return torch.zeros(0)
    frames = decoded_rollout(
        # One of the elements of its symmetries' group: all of them would take as many times as long.
        single_forecaster(model, codec.problem),
        codec,
        codec.seen(truth[:, :1])[:, 0],
        known_mask(dataset.known[0], truth.device),
        scalars_tensor(dataset.scalars, truth.device),
        truth.shape[1] - 1,
        time_step=dataset.time_step,
        parameters=dataset.parameters,
        generator=torch.Generator(truth.device),
    )
    scored = codec.shape.scored_fields
    return relative_l2_per_field(scored(frames[:, 0]), scored(truth[:, 1:].flatten(2, -2))).mean(dim=1)
