"""Encoder and any-point decoder, trained together."""

from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor, nn

from ups.kinds import module_of
from ups.models.decoder import AnyPointDecoder
from ups.models.embedding import module_key
from ups.models.encoders.grid import GridEncoder
from ups.models.interpolation import at_points
from ups.models.shape import ProblemShape


def build(description: Mapping[str, Any], shapes: Mapping[str, ProblemShape]) -> "Autoencoder":
    """See `ups.models.build`."""
    dim, settings = description["latent_dim"], dict(description["encoder"])
    kind = module_of("ups.models.encoders", settings.pop("kind", "grid"))
    return Autoencoder(
        kind.encoder(shapes, latent_dim=dim, **settings),
        AnyPointDecoder(shapes, latent_dim=dim, **description["decoder"]),
    )


class Autoencoder(nn.Module):
    """Fields to latents and back to values at any coordinates."""

    def __init__(self, encoder: GridEncoder, decoder: AnyPointDecoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    def forward(
        self,
        fields: Tensor,
        coordinates: Tensor | None,
        problem: str,
        known: Tensor | None = None,
        points: Tensor | None = None,
    ) -> Tensor:
        """Fields [B, *grid, C] and coordinates [Q, axes] (None: the grid) to values [B, Q, C].

        points: [B, P, axes] at which alone the fields are seen, of an encoder of points.
        """
        if points is not None:
            values = at_points(fields.unsqueeze(1), points, self.encoder.token_grids[problem])
            fields = self.encoder.from_points(values, points, problem).squeeze(1)
        return self.decoder(self.encoder(fields, problem, known), coordinates, problem)

    def set_basis(self, problem: str, basis: Tensor) -> None:
        """Start a problem's linear maps at an orthonormal basis [latent_dim, patch values] and its transpose."""
        key = module_key(problem)
        for linear, weight in ((self.encoder.linear[key], basis), (self.decoder.linear[key], basis.T)):
            cast(nn.Linear, linear).weight.data.copy_(weight)
