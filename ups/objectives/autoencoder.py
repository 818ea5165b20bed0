"""Reconstruction: decode the encoding of a field at query points."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ups.data.batch import Batch
from ups.losses.relative import relative_l2_per_field
from ups.models.shape import ProblemShape
from ups.models.token_grid import cell_centres
from ups.objectives.objective import Loss
from ups.objectives.queries import drawn_points


class Reconstruction:
    """Relative L2 of reconstructed single frames, mean over the fields that are known, in normalised units.

    Frames are shifted by a random number of grid points along periodic axes first: that is a symmetry of the
    problem, and it teaches the encoder every alignment of a front to its patches.
    """

    def __init__(
        self, shapes: Mapping[str, ProblemShape], *, query_points: int | None, device: torch.device
    ) -> None:
        """query_points: how many points of the grid are decoded per step (None: all)."""
        self.periodic = {name: shape.layout.periodic for name, shape in shapes.items()}
        self.coordinates = {name: cell_centres(shape.grid).to(device) for name, shape in shapes.items()}
        self.query_points = query_points

    def __call__(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Loss:
        if batch.fields is None:
            raise ValueError("this objective reads fields")
        fields = random_shift(batch.fields[:, 0], self.periodic[batch.problem], generator)
        known = None if batch.known is None else batch.known[:, 0]
        targets = fields.flatten(1, -2)
        coordinates = self.coordinates[batch.problem]
        chosen = drawn_points(len(coordinates), self.query_points, generator)
        if chosen is not None:
            coordinates, targets = coordinates[chosen], targets[:, chosen]
        decoded = model(fields, coordinates, batch.problem, known).float()
        return Loss(reconstruction_errors(decoded, targets, known).mean())


def reconstruction_errors(decoded: Tensor, targets: Tensor, known: Tensor | None) -> Tensor:
    """Relative L2 of decoded [B, Q, C] to targets, mean over the known fields of each sample, [B].

    known: [B, C] bool; None: all. A field that is not known has no target and does not count.
    """
    if known is None:
        return relative_l2_per_field(decoded, targets).mean(dim=1)
    # An unknown target is 0: dividing by its norm would give NaN, which no later mask takes away.
    stand_in = torch.where(known[:, None], targets, 1.0)
    errors = relative_l2_per_field(torch.where(known[:, None], decoded, 1.0), stand_in)
    return errors.sum(dim=1) / known.sum(dim=1)


def random_shift(fields: Tensor, periodic: tuple[bool, ...], generator: torch.Generator) -> Tensor:
    """Roll fields [B, *grid, C] by one random offset per periodic axis, the same for the whole batch."""
    offsets, axes = [], []
    for axis, (points, wraps) in enumerate(zip(fields.shape[1:-1], periodic, strict=True), start=1):
        if wraps:
            offset = torch.randint(points, (), generator=generator, device=generator.device)
            offsets.append(int(offset.item()))
            axes.append(axis)
    return fields.roll(offsets, dims=axes) if axes else fields
