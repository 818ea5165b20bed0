"""Encoder and any-point decoder, trained together."""

from torch import Tensor, nn

from ups.models.decoder import AnyPointDecoder
from ups.models.encoder import GridEncoder


class Autoencoder(nn.Module):
    """Fields to latents and back to values at any coordinates."""

    def __init__(self, encoder: GridEncoder, decoder: AnyPointDecoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    def forward(
        self, fields: Tensor, coordinates: Tensor, problem: str, known: Tensor | None = None
    ) -> Tensor:
        """Fields [B, *grid, C] and coordinates [Q, axes] to values [B, Q, C]; see `GridEncoder.forward`."""
        return self.decoder(self.encoder(fields, problem, known), coordinates, problem)
