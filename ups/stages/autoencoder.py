"""autoencoder: encoder and any-point decoder, trained together on single frames.

The linear maps start as the identity where a token has a channel for every value of its patch, and as the
principal components of the train split's patches where it has fewer. Without corrections that is all there is to
know, and `training.autoencoder.steps: 0` skips the training.
"""

import logging

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ups.config import Configuration
from ups.data.dataset import Dataset, load_datasets
from ups.data.window_reader import InMemoryReader
from ups.data.windows import ProblemWindows, WindowSource
from ups.errors import ConfigurationError, DataError
from ups.models.autoencoder import Autoencoder
from ups.models.reference_frame import ReferenceFrame
from ups.models.shape import ProblemShape
from ups.runtime.randomness import torch_generator
from ups.runtime.ranks import join_ranks
from ups.runtime.request import Request
from ups.training.loop import Validation
from ups.training.objectives.autoencoder import (
    Normalisation,
    Reconstruction,
    random_points,
    reconstructed,
    reconstruction_errors,
)
from ups.training.train import initial_model, train_and_publish

log = logging.getLogger(__name__)

_FRAMES_AT_ONCE = 2**14
_VALIDATION_POINTS = 2**20  # decoded at once: a batch of fine maps would take gigabytes
_BASIS_FRAMES = 4096  # of the train split, from which principal components are taken


def run(request: Request) -> None:
    """Train on train frames; report the reconstruction error of validation fields in physical units."""
    configuration = request.configuration
    settings = configuration.training.autoencoder
    with join_ranks(configuration.execution.device, configuration.execution.threads) as ranks:
        datasets = load_datasets(request.inputs["download"], ("train", "validation"))
        problems = {
            name: normalisation(name, data, configuration, ranks.device) for name, data in datasets.items()
        }
        model_settings = configuration.model
        description = {
            "kind": "autoencoder",
            "problems": {name: problem.shape.to_json() for name, problem in problems.items()},
            "latent_dim": model_settings.latent.dim,
            "encoder": model_settings.encoder.model_dump(),
            "decoder": model_settings.decoder.model_dump(),
            "statistics": {
                name: {"field_mean": problem.mean.tolist(), "field_deviation": problem.deviation.tolist()}
                for name, problem in problems.items()
            },
        }
        model = initial_model(description, request, ranks)
        assert isinstance(model, Autoencoder)
        floors = {
            name: start_linear(model, name, data, problems[name], configuration, ranks.device)
            for name, data in datasets.items()
        }
        held_out = {
            name: torch.from_numpy(data.split("validation")[ranks.rank :: ranks.world]).to(ranks.device)
            for name, data in datasets.items()
        }

        def errors(model: nn.Module) -> dict[str, Tensor]:
            assert isinstance(model, Autoencoder)
            return {
                name: _errors(model, name, problems[name], datasets[name].known, held_out[name])
                for name in problems
            }

        validation = Validation("validation_relative_l2", errors)
        summary = {"loading": "device", "untrained_relative_l2": floors}
        windows = {
            name: ProblemWindows(
                reader=InMemoryReader(
                    device=ranks.device, fields=torch.from_numpy(data.split("train")).to(ranks.device)
                ),
                length=1,
                scalars=data.scalars,
                known=data.known,
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
        objective = Reconstruction(problems, model.encoder.points)
        train_and_publish(
            model, description, objective, source, validation, settings, request, ranks, summary=summary
        )


def problem_shape(name: str, dataset: Dataset, configuration: Configuration) -> ProblemShape:
    """The shape of a problem as the networks of a configuration see it.

    Raises:
        ConfigurationError: a symmetry is used that the boundary of these data does not have.
    """
    uses, variables = configuration.symmetries(name), configuration.problems[name].used_variables()
    available = dataset.problem.has(dataset.boundary, variables)
    for symmetry in uses.used("exact", "augment", "average"):
        if symmetry not in available:
            raise ConfigurationError(
                f"{dataset.title} with {dataset.boundary} boundary does not have it",
                where=f"model.symmetries.{symmetry}",
                fix=f"write off; it has {', '.join(available) or 'none'}",
            )
    return ProblemShape(
        equation=dataset.problem.name,
        variables=variables,
        grid=dataset.grid,
        tokens=(configuration.tokens(name),) * len(dataset.grid),
        scored=tuple(dataset.scored),
        boundary=dataset.boundary,
        exact=uses.used("exact"),
    )


def normalisation(
    name: str, dataset: Dataset, configuration: Configuration, device: torch.device
) -> Normalisation:
    """The shape of a problem, and mean and deviation per field over the known values of the train split, taken in
    the frames of its trajectories. The mean is 0 where amplitude scaling is exact: it would not scale.

    Raises:
        DataError: a field has one value everywhere, and no deviation to divide by.
    """
    shape = problem_shape(name, dataset, configuration)
    rows = dataset.splits["train"]
    elapsed = dataset.time_step * torch.arange(len(dataset.known))
    known = torch.from_numpy(dataset.known)
    total = torch.zeros(2, shape.channels, dtype=torch.float64)
    lowest = torch.full((shape.channels,), torch.inf)
    highest = -lowest
    count = float(len(rows)) * float(np.prod(dataset.grid)) * known.sum(dim=0).double()
    for part in np.array_split(rows, -(-len(rows) // max(1, _FRAMES_AT_ONCE // len(known)))):
        fields = torch.from_numpy(dataset.fields[part])
        for channel, values in enumerate(fields.unbind(-1)):
            present = values[:, known[:, channel]]
            lowest[channel] = torch.minimum(lowest[channel], present.min())
            highest[channel] = torch.maximum(highest[channel], present.max())
        inside = ReferenceFrame.of(shape, fields[:, 0], dataset.parameters).enter(fields, elapsed).double()
        inside = inside.flatten(2, -2) * known[None, :, None]
        total[0] += inside.sum(dim=(0, 1, 2))
        total[1] += inside.square().sum(dim=(0, 1, 2))
    for channel in (lowest == highest).nonzero().flatten().tolist():
        raise DataError(
            f"{shape.names[channel]} is {lowest[channel]:g} everywhere in the train split: there is nothing to learn",
            where=dataset.title,
            fix="use data in which every field varies",
        )
    mean = torch.zeros_like(count) if shape.scales_itself else total[0] / count
    deviation = (total[1] / count - mean.square()).clamp_min(0).sqrt()
    return Normalisation(shape, dataset.parameters, mean.float().to(device), deviation.float().to(device))


def start_linear(
    model: Autoencoder,
    name: str,
    dataset: Dataset,
    problem: Normalisation,
    configuration: Configuration,
    device: torch.device,
) -> float:
    """Give a problem's linear maps their best start; the relative L2 that they leave on train fields.

    Raises:
        ConfigurationError: that is above the floor that the configuration asks for.
    """
    latent, shape = configuration.model.latent, problem.shape
    layout, rows = shape.token_grid, dataset.splits["train"]
    frames = len(rows) * len(dataset.known)
    chosen = np.unique(np.linspace(0, frames - 1, min(frames, _BASIS_FRAMES)).astype(np.int64))
    row, frame = np.divmod(chosen, len(dataset.known))
    fields = torch.from_numpy(dataset.fields[rows[row], frame]).to(device)
    known = torch.from_numpy(dataset.known[frame]).to(device)
    values = layout.patch_points * shape.channels
    if latent.dim < values:
        inside, _ = problem(fields, known)
        patches = layout.patchify(inside).flatten(0, 1).double()
        _, vectors = torch.linalg.eigh(patches.T @ patches)
        model.set_basis(name, vectors[:, -latent.dim :].flip(1).T.float())
    with torch.no_grad():
        points = random_points(model.encoder.points, fields, torch_generator(0, "points", device=device))
        errors = reconstruction_errors(*reconstructed(model, name, problem, fields, known, points), known)
    left = errors.mean().item()
    kind = "lossless" if latent.dim >= values else f"{latent.dim} of {values} numbers per patch"
    if points is not None:
        kind += f", from {model.encoder.points} random points"
    log.info("%s: linear codec, %s, leaves %.2g of the train fields", name, kind, left)
    if latent.floor is not None and left > latent.floor:
        raise ConfigurationError(
            f"{latent.dim} channels on {configuration.tokens(name)} tokens per axis leave {left:.2g} of the fields of "
            f"{name}, more than the floor of {latent.floor:g}",
            where=f"the configuration {configuration.name}: model.latent",
            fix=f"raise dim (lossless: {values}) or tokens, or the floor",
        )
    return left


def _errors(
    model: Autoencoder,
    name: str,
    problem: Normalisation,
    known: NDArray[np.bool_],
    held_out: Tensor,
) -> Tensor:
    """Relative L2 of each trajectory [n, t, *grid, C], mean over frames' known fields, [n].

    Over all frames at once where everything is known, as in the result table; per frame for a map.
    """
    if len(held_out) == 0:  # of a rank, where there are more ranks than trajectories
        return torch.zeros(0)
    frames = held_out.flatten(0, 1)
    present = torch.from_numpy(known).to(held_out.device).repeat(len(held_out), 1)
    at_once = max(1, _VALIDATION_POINTS // frames[0].numel())
    generator = torch_generator(0, "points", device=frames.device)  # the same at every validation
    parts = [
        reconstructed(model, name, problem, *part, random_points(model.encoder.points, part[0], generator))
        for part in zip(frames.split(at_once), present.split(at_once), strict=True)
    ]
    errors, fields = (torch.cat(values) for values in zip(*parts, strict=True))
    if known.all():
        shape = (len(held_out), -1, fields.shape[-1])
        return reconstruction_errors(errors.reshape(shape), fields.reshape(shape), None)
    return reconstruction_errors(errors, fields, present).view(len(held_out), -1).mean(dim=1)
