"""autoencoder: encoder and any-point decoder, trained together on single frames."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ups.config import Configuration
from ups.data.dataset import Dataset, load_datasets
from ups.data.stores import ResidentStore
from ups.data.windows import ProblemWindows, WindowSource
from ups.errors import DataError
from ups.models.autoencoder import Autoencoder
from ups.models.shape import ProblemShape
from ups.models.token_grid import cell_centres
from ups.objectives.autoencoder import Reconstruction, reconstruction_errors
from ups.runtime.ranks import join_ranks
from ups.runtime.request import Request
from ups.stages.training import initial_model, train_and_publish
from ups.training.loop import Validation

_VALIDATION_POINTS = 2**18  # decoded at once: a batch of fine maps would take gigabytes


def run(request: Request) -> None:
    """Train on train frames; report the reconstruction error of validation fields in physical units."""
    configuration = request.configuration
    settings = configuration.training.autoencoder
    with join_ranks(configuration.execution.device, configuration.execution.threads) as ranks:
        datasets = load_datasets(request.inputs["download"], ("train", "validation"))
        shapes = {name: problem_shape(name, data, configuration) for name, data in datasets.items()}
        statistics = {name: field_statistics(data) for name, data in datasets.items()}
        model_settings = configuration.model
        description = {
            "kind": "autoencoder",
            "problems": {name: shape.to_json() for name, shape in shapes.items()},
            "latent_dim": model_settings.latent.dim,
            "encoder": model_settings.encoder.model_dump(),
            "decoder": model_settings.decoder.model_dump(),
            "statistics": {
                name: {"field_mean": mean.tolist(), "field_deviation": deviation.tolist()}
                for name, (mean, deviation) in statistics.items()
            },
        }
        windows = {
            name: ProblemWindows(
                store=ResidentStore(
                    device=ranks.device, fields=torch.from_numpy(data.split("train")).to(ranks.device)
                ),
                length=1,
                scalars=data.scalars,
                known=data.known,
                mean=torch.tensor(statistics[name][0], dtype=torch.float32),
                deviation=torch.tensor(statistics[name][1], dtype=torch.float32),
            )
            for name, data in datasets.items()
        }
        source = WindowSource(
            windows,
            seed=configuration.seed,
            purpose=request.stage,
            batch_size=settings.batch_size,
            sampling=configuration.sampling,
            order=configuration.loading.order,
            device=ranks.device,
            rank=ranks.rank,
            world=ranks.world,
        )
        held_out = {
            name: torch.from_numpy(data.split("validation")[ranks.rank :: ranks.world]).to(ranks.device)
            for name, data in datasets.items()
        }

        def errors(model: nn.Module) -> dict[str, Tensor]:
            assert isinstance(model, Autoencoder)
            return {name: _errors(model, name, windows[name], held_out[name]) for name in windows}

        train_and_publish(
            initial_model(description, request, ranks),
            description,
            Reconstruction(shapes, query_points=settings.query_points, device=ranks.device),
            source,
            Validation("validation_relative_l2", errors),
            settings,
            request,
            ranks,
            told={"loading": "device"},
        )


def problem_shape(name: str, dataset: Dataset, configuration: Configuration) -> ProblemShape:
    """The shape of a problem as the networks of a configuration see it."""
    return ProblemShape(
        grid=dataset.grid,
        tokens=(configuration.tokens(name),) * len(dataset.grid),
        channels=len(dataset.names),
        scored=tuple(dataset.scored),
        boundary=dataset.boundary,
        partly_known=not bool(dataset.known.all()),
        scalars=len(dataset.scalars),
    )


def field_statistics(dataset: Dataset) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and deviation per field over the known values of the train split, each [C], physical units.

    Raises:
        DataError: a field has one value everywhere, and no deviation to divide by.
    """
    train = dataset.split("train")
    means, deviations = [], []
    for channel, known in enumerate(dataset.known.T):
        values = train[:, known, ..., channel]
        means.append(values.mean(dtype=np.float64))
        deviations.append(values.std(dtype=np.float64))
        if values.min() == values.max():
            raise DataError(
                f"{dataset.names[channel]} is {values.min():g} everywhere in the train split: there is nothing to learn",
                where=dataset.title,
                fix="use data in which every field varies",
            )
    return np.array(means), np.array(deviations)


def _errors(model: Autoencoder, problem: str, windows: ProblemWindows, held_out: Tensor) -> Tensor:
    """Relative L2 of each trajectory [n, t, *grid, C], physical units, mean over frames' known fields, [n].

    Over all frames at once where everything is known, as in the result table; per frame for a map.
    """
    if len(held_out) == 0:  # of a rank, where there are more ranks than trajectories
        return torch.zeros(0)
    mean, deviation = windows.mean.to(held_out), windows.deviation.to(held_out)
    coordinates = cell_centres(held_out.shape[2:-1]).to(held_out)
    frames = held_out.flatten(0, 1)
    known = torch.from_numpy(windows.known).to(held_out.device).repeat(len(held_out), 1)
    axes = (1,) * (frames.ndim - 2)
    decoded, at_once = [], max(1, _VALIDATION_POINTS // len(coordinates))
    for part, part_known in zip(frames.split(at_once), known.split(at_once), strict=True):
        normalised = (part - mean) / deviation * part_known.view(len(part), *axes, -1)
        decoded.append(model(normalised, coordinates, problem, part_known) * deviation + mean)
    rebuilt, exact = torch.cat(decoded), frames.flatten(1, -2)
    if windows.known.all():
        shape = (len(held_out), -1, exact.shape[-1])
        return reconstruction_errors(rebuilt.reshape(shape), exact.reshape(shape), None)
    return reconstruction_errors(rebuilt, exact, known).view(len(held_out), -1).mean(dim=1)
