"""operator: the PDE transformer on cached latents."""

import numpy as np
import torch
from torch import nn

from ups.data.cache import LatentCache, open_cache
from ups.data.windows import WindowSource
from ups.inference.forecaster import operator_forecaster
from ups.inference.rollout import decoded_rollout
from ups.losses.relative import relative_l2
from ups.models.build import CODEC_FILE, Description, load_model
from ups.models.codec import Codec
from ups.models.operator import LatentOperator
from ups.models.token_grid import cell_centres
from ups.objectives.operator import LatentForecast
from ups.runtime.ranks import join_ranks
from ups.runtime.request import Request
from ups.stages.training import initial_model, train_and_publish


def run(request: Request) -> None:
    """Train on windows of the fitted train trajectories; validate on full decoded rollouts."""
    configuration = request.configuration
    settings = configuration.training.operator
    with join_ranks(configuration.execution.device, configuration.execution.threads) as ranks:
        cache = open_cache(request.inputs["cache_encode"])
        codec, codec_description = load_model(request.inputs["cache_encode"] / CODEC_FILE, ranks.device)
        assert isinstance(codec, Codec)
        fitted, _ = cache.fitted_and_held_out(settings.residual_fraction)
        coordinates = cell_centres(codec_description["grid"]).to(ranks.device)
        source = WindowSource(
            seed=configuration.seed,
            batch_size=settings.batch_size,
            window=settings.rollout_steps + 1,
            scalars=cache.attributes["scalars"],
            device=ranks.device,
            fields=normalised_fields(codec, cache, fitted),
            latents=cache.latents[fitted],
            rank=ranks.rank,
            world=ranks.world,
        )
        rows = cache.rows("validation")
        truth = torch.from_numpy(cache.fields[rows].astype(np.float32)).to(ranks.device)
        scalars = torch.tensor(cache.attributes["scalars"], device=ranks.device)

        def validate(model: nn.Module) -> dict[str, float]:
            assert isinstance(model, LatentOperator)
            frames = decoded_rollout(
                operator_forecaster(model).step,
                codec,
                truth[:, 0],
                scalars,
                truth.shape[1] - 1,
                coordinates,
                generator=torch.Generator(ranks.device),
            )
            errors = relative_l2(frames[:, 0], truth[:, 1:].flatten(2, -2))
            return {"validation_relative_l2": errors.mean().item()}

        description = latent_description("operator", codec_description, cache) | {
            "network": configuration.model.operator.model_dump()
        }
        train_and_publish(
            initial_model(description, request, ranks),
            description,
            LatentForecast(codec, coordinates, field_weight=settings.field_weight),
            source,
            validate,
            settings,
            request,
            ranks,
        )


def latent_description(kind: str, codec: Description, cache: LatentCache) -> Description:
    """The part of a description that every model on the latents of a cache shares."""
    return {
        "kind": kind,
        "grid": codec["grid"],
        "tokens": codec["tokens"],
        "latent_dim": codec["latent_dim"],
        "scalars": len(cache.attributes["scalars"]),
        "codec": cache.attributes["encoder"],
    }


def normalised_fields(codec: Codec, cache: LatentCache, rows: np.ndarray) -> np.ndarray:
    """Fields [n, t, *grid, C] float32 of some rows, normalised."""
    mean, deviation = codec.field_mean.cpu().numpy(), codec.field_deviation.cpu().numpy()
    return ((cache.fields[rows].astype(np.float32) - mean) / deviation).astype(np.float32)
