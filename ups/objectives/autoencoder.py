"""Reconstruction: decode the encoding of a field at query points."""

import torch
from torch import Tensor, nn

from ups.data.batch import Batch
from ups.losses.relative import relative_l2
from ups.objectives.objective import Loss


class Reconstruction:
    """Relative L2 of reconstructed single frames, in normalised units.

    Frames are shifted by a random number of grid points first: on a periodic domain that is a symmetry of
    the problem, and it teaches the encoder every alignment of a front to its patches.
    """

    def __init__(self, coordinates: Tensor, *, query_points: int | None) -> None:
        """coordinates: [N, axes] of the grid; query_points: how many are decoded per step (None: all)."""
        self.coordinates = coordinates
        self.query_points = query_points

    def __call__(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Loss:
        if batch.fields is None:
            raise ValueError("this objective reads fields")
        fields = random_shift(batch.fields[:, 0], generator)
        targets = fields.flatten(1, -2)
        coordinates = self.coordinates
        if self.query_points is not None and self.query_points < len(coordinates):
            device = coordinates.device
            chosen = torch.randperm(len(coordinates), generator=generator, device=device)[: self.query_points]
            coordinates, targets = coordinates[chosen], targets[:, chosen]
        return Loss(relative_l2(model(fields, coordinates).float(), targets).mean())


def random_shift(fields: Tensor, generator: torch.Generator) -> Tensor:
    """Roll fields [B, *grid, C] by one random offset per space axis, the same for the whole batch."""
    grid = fields.shape[1:-1]
    offsets = [
        int(torch.randint(points, (), generator=generator, device=generator.device).item()) for points in grid
    ]
    return fields.roll(offsets, dims=list(range(1, fields.ndim - 1)))
