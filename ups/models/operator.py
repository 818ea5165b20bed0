"""Latent operator: one time step of the PDE on standardised latent tokens."""

from torch import Tensor, nn

from ups.models.latent_transformer import LatentTransformer


class LatentOperator(nn.Module):
    """z(t + dt) = z(t) + network(z(t), scalars). A fresh operator is persistence, exactly."""

    def __init__(self, network: LatentTransformer) -> None:
        super().__init__()
        self.network = network

    def forward(self, latents: Tensor, scalars: Tensor, problem: str) -> Tensor:
        """Latents [B, K, d], scalars [B, S] (logarithms of time step and PDE parameters) to [B, K, d]."""
        return latents + self.network(latents, scalars, problem)
