"""Scalars of a problem (time step, PDE parameters, noise level) to one conditioning vector."""

import torch
from torch import Tensor, nn


class ScalarEmbedding(nn.Module):
    """Fourier features of scalars [B, S], then a two-layer perceptron to [B, conditioning].

    Scalars arrive as logarithms of positive quantities (time step, viscosity, noise level), which vary
    over decades. `bands` octaves of sines resolve differences from about 2 decades down to
    2 / 2^bands decades.
    """

    frequencies: Tensor

    def __init__(self, scalars: int, conditioning: int, bands: int = 6) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.pi * 2.0 ** torch.arange(-1, bands - 1), persistent=False)
        self.network = nn.Sequential(
            nn.Linear(scalars * 2 * bands, conditioning), nn.SiLU(), nn.Linear(conditioning, conditioning)
        )

    def forward(self, scalars: Tensor) -> Tensor:
        angles = scalars.unsqueeze(-1) * self.frequencies
        return self.network(torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(-2))
