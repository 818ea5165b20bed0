"""Reconstruction: decode the encoding of a field."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ups.data.batch import Batch
from ups.losses.relative import relative_l2_per_field
from ups.models.codec import normalised
from ups.models.frame import Frame
from ups.models.shape import ProblemShape
from ups.objectives.objective import Loss


@dataclass(frozen=True)
class Normalisation:
    """What turns a problem's fields into what its autoencoder sees.

    Attributes:
        parameters: of the equation.
        mean, deviation: of the fields in their frame, [C].
    """

    shape: ProblemShape
    parameters: dict[str, float]
    mean: Tensor
    deviation: Tensor

    def __call__(self, fields: Tensor, known: Tensor | None) -> Tensor:
        """Physical fields [B, *grid, C], each taken for the first of its trajectory, to normalised ones."""
        frame = Frame.of(self.shape, fields, self.parameters)
        inside = frame.enter(fields.unsqueeze(1), torch.zeros(1, device=fields.device)).squeeze(1)
        return normalised(inside, self.mean, self.deviation, known)


class Reconstruction:
    """Relative L2 of reconstructed single frames, mean over the fields that are known, in normalised units.

    Frames are shifted by a random number of grid points along periodic axes first: that is a symmetry of the
    problem, and it teaches the encoder every alignment of a front to its patches.
    """

    def __init__(self, problems: Mapping[str, Normalisation]) -> None:
        self.problems = dict(problems)

    def __call__(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Loss:
        if batch.fields is None:
            raise ValueError("this objective reads fields")
        problem = self.problems[batch.problem]
        known = None if batch.known is None else batch.known[:, 0]
        fields = random_shift(batch.fields[:, 0], problem.shape.layout.periodic, generator)
        targets = problem(fields, known)
        decoded = model(targets, None, batch.problem, known).float()
        return Loss(reconstruction_errors(decoded, targets.flatten(1, -2), known).mean())


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
