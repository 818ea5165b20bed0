"""The frozen codec: physical fields to standardised latents and back."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from ups.models.autoencoder import Autoencoder
from ups.models.embedding import module_key
from ups.models.shape import ProblemShape


class Statistics(nn.Module):
    """Means and deviations of one problem's train split, per channel."""

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
    """A codec, bound to one problem.

    Attributes:
        problem: its name.
        shape: its grid, fields and boundary.
        statistics: of its train split.
    """

    problem: str
    shape: ProblemShape
    autoencoder: Autoencoder
    statistics: Statistics

    def normalise(self, fields: Tensor) -> Tensor:
        """Physical fields [..., C] to zero mean and unit deviation over the train split."""
        return (fields - self.statistics.field_mean) / self.statistics.field_deviation

    def denormalise(self, fields: Tensor) -> Tensor:
        return fields * self.statistics.field_deviation + self.statistics.field_mean

    def encode(self, fields: Tensor, known: Tensor | None = None) -> Tensor:
        """Physical fields [B, *grid, C] to standardised latents [B, K, d].

        known: [B, C] bool, which fields are known; None: all.
        """
        normalised = self.normalise(fields)
        if known is not None:
            axes = (1,) * (fields.ndim - 2)
            normalised = normalised * known.view(len(fields), *axes, known.shape[-1])
        latents = self.autoencoder.encoder(normalised, self.problem, known)
        return (latents - self.statistics.latent_mean) / self.statistics.latent_deviation

    def decode_normalised(self, latents: Tensor, coordinates: Tensor) -> Tensor:
        """Standardised latents [B, K, d] at coordinates [Q, axes] to normalised fields [B, Q, C]."""
        raw = latents * self.statistics.latent_deviation + self.statistics.latent_mean
        return self.autoencoder.decoder(raw, coordinates, self.problem)

    def decode(self, latents: Tensor, coordinates: Tensor) -> Tensor:
        """Standardised latents [B, K, d] at coordinates [Q, axes] to physical fields [B, Q, C]."""
        return self.denormalise(self.decode_normalised(latents, coordinates))
