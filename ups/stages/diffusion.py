"""diffusion: a denoiser of the operator's residual."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ups.config.stages.diffusion import RESIDUAL_TRAJECTORIES
from ups.data.dataset import Dataset, load_datasets
from ups.data.splits import fitted_and_held_out
from ups.evaluation.correction import Sampler, calibration, diffusion_sampler, ungated
from ups.evaluation.surrogate import RESIDUAL_FILE
from ups.models.build import MODEL_FILE, Description, codec_of_operator, has_codec, load_model
from ups.models.forecast import Forecast
from ups.models.operators import LatentOperator
from ups.models.residual import ResidualNetwork
from ups.runtime.randomness import torch_generator
from ups.runtime.ranks import Ranks, join_ranks
from ups.runtime.request import Request
from ups.training.latents import LatentProblem, open_problems
from ups.training.loop import Validation
from ups.training.objectives import Objective
from ups.training.objectives.diffusion import ResidualDenoising
from ups.training.residuals import Residuals, ResidualSource
from ups.training.train import initial_model, latent_description, train_and_publish

log = logging.getLogger(__name__)

_CALIBRATION_MEMBERS = 16
_CALIBRATION_TRAJECTORIES = 128
_FITTED_TRAJECTORIES = 512  # that the deviation is fitted on, at most
FORECAST_FILE = "forecasts.safetensors"


@dataclass(frozen=True)
class ResidualData:
    """What diffusion and consistency training read: the operator's residuals to fit, and others to validate on.

    Validation reads the float32 source: an operator may be as good as the cache's float16, and ensembles that are
    calibrated on its rounding errors would be too wide.

    Attributes:
        validation: by problem, its trajectories.
        validation_residuals: of them, by problem.
    """

    codec: Description
    operator: LatentOperator
    source: ResidualSource
    validation: dict[str, LatentProblem]
    validation_residuals: dict[str, Residuals]


def run(request: Request) -> None:
    """Train on residuals of held-out train trajectories; validate and calibrate on the validation split."""
    configuration = request.configuration
    settings = configuration.training.diffusion
    with join_ranks(configuration.execution.device, configuration.execution.threads) as ranks:
        data = residual_data(request, ranks, batch_size=settings.batch_size)
        description = latent_description("diffusion", data.codec) | {
            "network": configuration.model.denoiser.model_dump(),
            "leads": {
                name: residuals.truth.shape[1] for name, residuals in data.validation_residuals.items()
            },
            "sampler": {
                "steps": settings.sampler_steps,
                "sigma_min": settings.noise.sigma_min,
                "centre": settings.noise.centre,
            },
        }
        model = initial_model(description, request, ranks)
        assert isinstance(model, ResidualNetwork)
        for name, residuals in data.source.problems.items():
            part = slice(_FITTED_TRAJECTORIES)
            forecasts = residuals.forecasts[part]
            errors = residuals.truth[part] - forecasts.mean
            model.fit_deviation(errors, forecasts, name)
            model.fit_tails(errors / model.deviation(forecasts, name), name)
        objective = ResidualDenoising(
            centre=settings.noise.centre, std_log_sigma=settings.noise.std_log_sigma
        )

        def finish() -> None:
            calibrate(model, data, [diffusion_sampler(**description["sampler"])], request)
            if ranks.is_first:
                save_residuals(request.output / RESIDUAL_FILE, model, data.source.problems)
                save_forecasts(request.output / FORECAST_FILE, data)

        train_and_publish(
            model,
            description,
            objective,
            data.source,
            loss_validation(objective, data.validation_residuals, request, ranks),
            settings,
            request,
            ranks,
            finish=finish,
        )


def residual_data(
    request: Request, ranks: Ranks, *, batch_size: int, made: Mapping[str, Forecast] | None = None
) -> ResidualData:
    """The operator's residuals on the trajectories that it did not fit.

    made: forecasts that another stage made, as from `load_forecasts`.
    """
    configuration = request.configuration
    codec, description = codec_of_operator(request.inputs, ranks.device)
    operator, _ = load_model(request.inputs["operator"] / MODEL_FILE, ranks.device)
    assert isinstance(operator, LatentOperator)
    anew = has_codec(request.inputs["operator"])
    problems = open_problems(request.inputs, configuration, codec, ranks, encode_anew=anew)

    def residuals(problem: LatentProblem, split: str, rows: NDArray[np.int64]) -> Residuals:
        latents, scalars = problem.latents(rows), problem.conditioning(rows)
        if made is None:
            return Residuals.of(operator, problem.codec, latents, scalars)
        name = problem.codec.problem
        return Residuals(name, latents[:, 1:], made[f"{split}/{name}"], scalars)

    fraction = configuration.training.operator.residual_fraction
    source = ResidualSource.of(
        {
            name: residuals(problem, "train", fitted_and_held_out(problem.rows("train"), fraction)[1])
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
        name: LatentProblem(codec.of(name), dataset, ranks.device)
        for name, dataset in load_datasets(request.inputs["download"], ("validation",)).items()
    }
    held_back = {
        name: residuals(problem, "validation", problem.rows("validation"))
        for name, problem in validation.items()
    }
    return ResidualData(description, operator, source, validation, held_back)


def loss_validation(
    objective: Objective, problems: dict[str, Residuals], request: Request, ranks: Ranks
) -> Validation:
    """The objective on the validation split with fixed noise: comparable between steps.

    A rank's share gives its mean, once for each of its examples, so that shares are weighted by their size.
    """
    batches = {
        name: residuals.take(np.arange(len(residuals))[ranks.rank :: ranks.world])
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


def calibrate(model: ResidualNetwork, data: ResidualData, samplers: list[Sampler], request: Request) -> None:
    """Fit gates and factors of the spread on the validation split, for each way in which the model is sampled."""
    for name, residuals in data.validation_residuals.items():
        problem, device = data.validation[name], residuals.truth.device
        rows = slice(_CALIBRATION_TRAJECTORIES)
        forecasts, scalars = residuals.forecasts[rows], residuals.scalars[rows]
        assert isinstance(problem.source, Dataset)
        truth = torch.from_numpy(problem.source.split("validation")[rows]).to(device)
        for way, sampler in enumerate(samplers):
            key = (request.configuration.seed, request.stage, "calibration", name, way)
            generator = torch_generator(*key, device=device)
            found = calibration(
                ungated(
                    data.operator, model, sampler, forecasts, scalars, name, _CALIBRATION_MEMBERS, generator
                ),
                forecasts,
                problem.codec,
                truth,
                time_step=problem.source.time_step,
                parameters=problem.source.parameters,
            )
            model.set_calibration(name, way, found.gate, found.spread)
            log.info(
                "%s: gates %s, factors of the spread %s, per lead",
                name, *(f"{values.min():.2f} to {values.max():.2f}" for values in (found.gate, found.spread)),
            )  # fmt: skip


def save_forecasts(path: Path, data: ResidualData) -> None:
    """All forecasts, for whoever needs them again: of a group's elements they take longer than some trainings."""
    tensors = {}
    for split, problems in (("train", data.source.problems), ("validation", data.validation_residuals)):
        for name, residuals in problems.items():
            tensors[f"{split}/{name}/mean"] = residuals.forecasts.mean.cpu().contiguous()
            tensors[f"{split}/{name}/variance"] = residuals.forecasts.variance.cpu().contiguous()
    save_file(tensors, path)


def load_forecasts(path: Path, device: torch.device) -> dict[str, Forecast]:
    """Forecasts by "split/problem", as `save_forecasts` wrote them."""
    tensors = {name: values.to(device) for name, values in load_file(path).items()}
    names = {name.rpartition("/")[0] for name in tensors}
    return {name: Forecast(tensors[f"{name}/mean"], tensors[f"{name}/variance"]) for name in names}


def save_residuals(path: Path, model: ResidualNetwork, problems: dict[str, Residuals]) -> None:
    """Residuals of some forecasts of every problem, as they are and in their deviations."""
    tensors = {}
    for name, residuals in problems.items():
        part = slice(RESIDUAL_TRAJECTORIES)
        forecasts = residuals.forecasts[part]
        errors = residuals.truth[part] - forecasts.mean
        tensors[f"errors/{name}"] = errors.cpu().contiguous()
        tensors[f"scaled/{name}"] = (errors / model.deviation(forecasts, name)).cpu().contiguous()
    save_file(tensors, path)
