"""autoencoder: encoder and any-point decoder, trained together on single frames."""

import numpy as np
import torch
from torch import nn

from ups.data.dataset import Dataset, load_dataset
from ups.data.windows import WindowSource
from ups.losses.relative import relative_l2
from ups.models.autoencoder import Autoencoder
from ups.models.token_grid import cell_centres
from ups.objectives.autoencoder import Reconstruction
from ups.runtime.ranks import join_ranks
from ups.runtime.request import Request
from ups.stages.training import initial_model, train_and_publish

_VALIDATION_BATCH = 1024


def run(request: Request) -> None:
    """Train on train frames; report the reconstruction error of validation fields in physical units."""
    configuration = request.configuration
    settings = configuration.training.autoencoder
    with join_ranks(configuration.execution.device, configuration.execution.threads) as ranks:
        dataset = load_dataset(request.inputs["download"], ("train", "validation"))
        mean, deviation = field_statistics(dataset)
        coordinates = cell_centres(dataset.grid).to(ranks.device)
        model_settings = configuration.model
        description = {
            "kind": "autoencoder",
            "grid": list(dataset.grid),
            "tokens": [model_settings.latent.tokens] * len(dataset.grid),
            "latent_dim": model_settings.latent.dim,
            "channels": len(dataset.names),
            "encoder": model_settings.encoder.model_dump(),
            "decoder": model_settings.decoder.model_dump(),
            "field_mean": mean.tolist(),
            "field_deviation": deviation.tolist(),
        }
        source = WindowSource(
            seed=configuration.seed,
            batch_size=settings.batch_size,
            window=1,
            scalars=dataset.scalars,
            device=ranks.device,
            fields=((dataset.split("train") - mean) / deviation).astype(np.float32),
            rank=ranks.rank,
            world=ranks.world,
        )
        held_out = torch.from_numpy(dataset.split("validation")).to(ranks.device)
        mean_t, deviation_t = torch.tensor(mean).to(held_out), torch.tensor(deviation).to(held_out)

        def validate(model: nn.Module) -> dict[str, float]:
            assert isinstance(model, Autoencoder)
            frames = held_out.flatten(0, 1)
            decoded = [
                model((part - mean_t) / deviation_t, coordinates) * deviation_t + mean_t
                for part in frames.split(_VALIDATION_BATCH)
            ]
            rebuilt = torch.cat(decoded).view_as(held_out)
            return {"validation_relative_l2": relative_l2(rebuilt, held_out).mean().item()}

        train_and_publish(
            initial_model(description, request, ranks),
            description,
            Reconstruction(coordinates, query_points=settings.query_points),
            source,
            validate,
            settings,
            request,
            ranks,
        )


def field_statistics(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation per field over the train split, each [C], physical units."""
    train = dataset.split("train").reshape(-1, len(dataset.names)).astype(np.float64)
    return train.mean(axis=0), train.std(axis=0)
