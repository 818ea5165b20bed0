"""Reconstruction: decode the encoding of a field."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ups.data.batch import Batch
from ups.losses.relative import relative_l2_by_frame
from ups.models.codec import normalise
from ups.models.reference_frame import ReferenceFrame
from ups.models.shape import ProblemShape
from ups.training.objectives.objective import Loss, Objective


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

    def __call__(self, fields: Tensor, known: Tensor | None) -> tuple[Tensor, Tensor]:
        """Physical fields [B, *grid, C], each taken for the first of its trajectory, to normalised ones and their unit.

        The unit [B, 1, C] makes differences of normalised fields physical ones.
        """
        frame = ReferenceFrame.of(self.shape, fields, self.parameters)
        inside = frame.enter(fields.unsqueeze(1), torch.zeros(1, device=fields.device)).squeeze(1)
        unit = (self.deviation * frame.scale).unsqueeze(1)
        return normalise(inside, self.mean, self.deviation, known), unit


class Reconstruction(Objective):
    """Relative L2 of reconstructed single frames, mean over the fields that are known, in physical units as the metric:
    in normalised ones a field whose mean was subtracted would weigh more, the less it varies around it.

    Frames are shifted by a random number of grid points along periodic axes first: that is a symmetry of the
    problem, and it teaches the encoder every alignment of a front to its patches.
    """

    def __init__(self, problems: Mapping[str, Normalisation], points: int | None = None) -> None:
        """points: at which an encoder of points sees a frame, at random, other ones in every step."""
        self.problems, self.points = dict(problems), points

    def __call__(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Loss:
        if batch.fields is None:
            raise ValueError("this objective reads fields")
        problem = self.problems[batch.problem]
        known = None if batch.known is None else batch.known[:, 0]
        fields = random_shift(batch.fields[:, 0], problem.shape.token_grid.periodic, generator)
        points = random_points(self.points, fields, generator)
        decoded = reconstructed(model, batch.problem, problem, fields, known, points)
        errors = reconstruction_errors(*decoded, known)
        return Loss(errors.mean(), {})


def random_points(points: int | None, fields: Tensor, generator: torch.Generator) -> Tensor | None:
    """Uniformly random places [B, points, axes] for each of the fields [B, *grid, C]; None where none are asked for."""
    if points is None:
        return None
    shape = (len(fields), points, fields.ndim - 2)
    return torch.rand(shape, generator=generator, device=generator.device).to(fields.device)


def reconstructed(
    model: nn.Module,
    name: str,
    problem: Normalisation,
    fields: Tensor,
    known: Tensor | None,
    points: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Errors of the decoded encoding of physical fields [B, *grid, C], and the fields, [B, Q, C] both.

    Errors are physical, but on the points of the frame: norms are the same there.
    points: [B, P, axes] at which alone the encoder sees the fields; None: their grid.
    """
    inside, unit = problem(fields, known)
    decoded = model(inside, None, name, known, points).float()
    return (decoded - inside.flatten(1, -2)) * unit, fields.flatten(1, -2)


def reconstruction_errors(errors: Tensor, fields: Tensor, known: Tensor | None) -> Tensor:
    """Relative L2 of errors [B, Q, C] of fields, mean over the known fields of each sample, [B].

    known: [B, C] bool; None: all. A field that is not known has no target and does not count.
    """
    if known is None:
        return relative_l2_by_frame(errors.unsqueeze(1), fields.unsqueeze(1)).flatten(1).mean(dim=1)
    errors = torch.where(known[:, None], errors, 0.0)
    relative = relative_l2_by_frame(errors.unsqueeze(1), fields.unsqueeze(1)).flatten(1)
    return relative.sum(dim=1) / known.sum(dim=1)


def random_shift(fields: Tensor, periodic: tuple[bool, ...], generator: torch.Generator) -> Tensor:
    """Roll fields [B, *grid, C] by one random offset per periodic axis, the same for the whole batch."""
    for axis, (points, wraps) in enumerate(zip(fields.shape[1:-1], periodic, strict=True), start=1):
        if wraps:
            # A gather, where `roll` would have the host wait for the number.
            offset = torch.randint(points, (), generator=generator, device=generator.device)
            place = torch.arange(points, device=fields.device) - offset.to(fields.device)
            fields = fields.index_select(axis, place % points)
    return fields
