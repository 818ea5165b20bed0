"""The frozen codec: physical fields to standardised latents and back.

An encoder of points sees of every trajectory of a data set what `seen` leaves of it: values at random places, from which it makes
fields on the grid, and from these latents. Fields that are on the grid are encoded as they are.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from ups.errors import DataError
from ups.models.autoencoder import Autoencoder
from ups.models.autoencoder import build as build_autoencoder
from ups.models.embedding import module_key
from ups.models.interpolation import at_points, interpolate
from ups.models.reference_frame import ReferenceFrame
from ups.models.shape import ProblemShape
from ups.runtime.precision import full_float32
from ups.runtime.randomness import torch_generator

# Decoding needs some kilobytes per point: a frame of two axes for a whole batch would take gigabytes at once.
_POINTS_AT_ONCE = 2**22


class Statistics(nn.Module):
    """Means and deviations of one problem's train split, per channel, in the frame of the models."""

    field_mean: Tensor
    field_deviation: Tensor
    latent_mean: Tensor
    latent_deviation: Tensor

    def __init__(self, channels: int, latent_dim: int) -> None:
        """Fields in physical units [C], latents [d]; zero and one until they are set."""
        super().__init__()
        self.register_buffer("field_mean", torch.zeros(channels))
        self.register_buffer("field_deviation", torch.ones(channels))
        self.register_buffer("latent_mean", torch.zeros(latent_dim))
        self.register_buffer("latent_deviation", torch.ones(latent_dim))

    def standardise(self, raw: Tensor) -> Tensor:
        """Raw latents [..., d], as the encoder gives them, to zero mean and unit deviation."""
        return (raw - self.latent_mean) / self.latent_deviation

    def raw(self, latents: Tensor) -> Tensor:
        """The inverse of `standardise`."""
        return latents * self.latent_deviation + self.latent_mean


def build(description: Mapping[str, Any], shapes: Mapping[str, ProblemShape]) -> "Codec":
    """See `ups.models.build`."""
    return Codec(build_autoencoder(description, shapes), shapes, description["latent_dim"])


class Codec(nn.Module):
    """A trained autoencoder with the statistics of the train split; what a latent *means*.

    Latents of two codecs are unrelated, so the codec travels with the cache that it wrote, and every model
    trained on that cache is used with it.
    """

    def __init__(self, autoencoder: Autoencoder, shapes: Mapping[str, ProblemShape], latent_dim: int) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.shapes = dict(shapes)
        self.statistics = nn.ModuleDict(
            {module_key(name): Statistics(shape.channels, latent_dim) for name, shape in shapes.items()}
        )
        self.requires_grad_(False)

    def of(self, problem: str) -> "ProblemCodec":
        """The codec of one problem.

        Raises:
            KeyError: the codec was not trained on this problem.
        """
        statistics = cast(Statistics, self.statistics[module_key(problem)])
        return ProblemCodec(problem, self.shapes[problem], self.autoencoder, statistics)


@dataclass(frozen=True, eq=False)
class ProblemCodec:
    """A codec, bound to one problem. It computes in float32, whatever networks do: errors are of thousandths.

    Attributes:
        problem: its name.
        shape: its grid, fields, boundary and symmetries.
        statistics: of its train split.
    """

    problem: str
    shape: ProblemShape
    autoencoder: Autoencoder
    statistics: Statistics

    def normalise(self, fields: Tensor, known: Tensor | None = None) -> Tensor:
        """Fields [..., *grid, C] of a frame to zero mean and unit deviation over the train split.

        known: [..., C] bool, which fields are known (the others become 0); None: all.
        """
        return normalise(fields, self.statistics.field_mean, self.statistics.field_deviation, known)

    def denormalise(self, fields: Tensor) -> Tensor:
        return fields * self.statistics.field_deviation + self.statistics.field_mean

    def fields(self, latents: Tensor) -> Tensor:
        """Standardised latents [n, t, K, d] to fields on the grid, physical but in the models' frame."""
        return self.denormalise(self.normalised_fields(latents))

    def frame(self, first: Tensor, parameters: dict[str, float] | None = None) -> ReferenceFrame:
        """The frames of trajectories from their first states [n, *grid, C]; see `ReferenceFrame.of`."""
        return ReferenceFrame.of(self.shape, first, parameters)

    def seen(self, fields: Tensor) -> Tensor:
        """What is known of physical trajectories [n, t, *grid, C] by this encoder, the same shape.

        Of an encoder of points: values of the fields' any-point interpolant at places that stay the same along a trajectory, and are
        drawn by the bits of its first state: whoever meets it, in whatever batch, sees the same. Otherwise the fields themselves.
        """
        points = self.autoencoder.encoder.points
        if points is None:
            return fields
        places = torch.stack([_random_places(first, points) for first in fields[:, 0]])
        return self.from_points(at_points(fields, places, self.shape.token_grid), places)

    def from_points(self, values: Tensor, coordinates: Tensor, present: Tensor | None = None) -> Tensor:
        """Physical values [n, t, P, C] at coordinates [n, P, axes], in domain lengths, to fields on the grid [n, t, *grid, C].

        present: [n, P] bool, false where a shorter set of points was filled up; None: all are there.

        Raises:
            DataError: a supernode has no point within the encoder's radius.
        """
        encoder = self.autoencoder.encoder
        with full_float32(values.device):
            fields = encoder.from_points(values.float(), coordinates, self.problem, present)
        if bool(fields.isnan().any()) and bool(values.isfinite().all()):
            raise DataError(
                "some supernode has no point within the encoder's radius",
                where=f"the points of {self.problem}",
                fix="give points all over the domain, or train with a larger model.encoder.radius",
            )
        return fields

    def encode(
        self, fields: Tensor, elapsed: Tensor, frame: ReferenceFrame, known: Tensor | None = None
    ) -> Tensor:
        """Physical fields [n, t, *grid, C] at times [t] (or [n, t]) since the first state to latents [n, t, K, d].

        frame: of the n trajectories.
        known: [n, t, C] bool; None: all.
        """
        inside = self.normalise(frame.enter(fields, elapsed), known).flatten(0, 1)
        mask = None if known is None else known.flatten(0, 1)
        with full_float32(fields.device):
            latents = self.autoencoder.encoder(inside, self.problem, mask)
        return self.statistics.standardise(latents).unflatten(0, fields.shape[:2])

    def encode_trajectories(
        self,
        fields: Tensor,
        known: Tensor | None,
        *,
        time_step: float,
        parameters: dict[str, float],
    ) -> Tensor:
        """Whole trajectories [n, t, *grid, C], in the frames of their first states, to latents [n, t, K, d].

        known: [t, C] bool; None: all.
        """
        elapsed = time_step * torch.arange(fields.shape[1], device=fields.device)
        mask = None if known is None else known.expand(fields.shape[0], -1, -1)
        return self.encode(fields, elapsed, self.frame(fields[:, 0], parameters), mask)

    def normalised_fields(self, latents: Tensor) -> Tensor:
        """Standardised latents [n, t, K, d] to normalised fields on the grid, in their frame, [n, t, *grid, C]."""
        raw = self.statistics.raw(latents).float()
        with full_float32(latents.device):
            return self.autoencoder.decoder.grid(raw.flatten(0, 1), self.problem).unflatten(
                0, latents.shape[:2]
            )

    def decode(
        self, latents: Tensor, elapsed: Tensor, frame: ReferenceFrame, coordinates: Tensor | None = None
    ) -> Tensor:
        """Standardised latents [n, t, K, d] at times [n, t] since the first state to physical fields [n, t, Q, C].

        coordinates: [Q, axes] in domain lengths; None: the points of the grid, in C order.
        """
        points = max(math.prod(self.shape.grid), 0 if coordinates is None else len(coordinates))
        at_once = max(1, _POINTS_AT_ONCE // (points * latents.shape[1]))
        # An exported program is for any number of trajectories: no loop may depend on it.
        starts = [None] if torch.compiler.is_exporting() else range(0, latents.shape[0], at_once)
        parts = []
        for start in starts:
            rows = slice(None) if start is None else slice(start, start + at_once)
            fields = frame[rows].leave(self.fields(latents[rows]), elapsed[rows])
            if coordinates is None:
                parts.append(fields.flatten(2, -2))
            else:
                values = interpolate(fields.flatten(0, 1), coordinates, self.shape.token_grid)
                parts.append(values.unflatten(0, fields.shape[:2]))
        return torch.cat(parts)


def _random_places(first: Tensor, points: int) -> Tensor:
    """Uniformly random places [points, axes] by the bits of a first state [*grid, C]."""
    bits = hashlib.sha256(first.detach().cpu().contiguous().numpy().tobytes()).hexdigest()
    generator = torch_generator(0, "points", bits, device=torch.device("cpu"))
    return torch.rand(points, first.ndim - 1, generator=generator).to(first.device)


def normalise(fields: Tensor, mean: Tensor, deviation: Tensor, known: Tensor | None) -> Tensor:
    """Fields [..., *grid, C] less their mean [C] over their deviation [C]; what is not known [..., C] is 0."""
    values = (fields - mean) / deviation
    if known is None:
        return values
    axes = (1,) * (fields.ndim - known.ndim)
    return values * known.view(*known.shape[:-1], *axes, known.shape[-1])
