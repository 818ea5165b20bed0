"""The network behind the generative models of the operator's residual."""

import torch
from torch import Tensor, nn

from ups.models.latent_transformer import LatentTransformer


class ResidualNetwork(nn.Module):
    """Raw network F of a diffusion model and of its consistency student, which starts from its weights.

    The residual is r = (z_next - prediction) / residual_deviation, per channel. What surrounds F (skip
    connections, noise scaling) is mathematics, in `ups.diffusion`.
    """

    residual_deviation: Tensor

    def __init__(self, network: LatentTransformer, residual_deviation: Tensor) -> None:
        """network: inputs 3 d, outputs d, scalars S + 1; residual_deviation: [d], standardised latents."""
        super().__init__()
        self.network = network
        self.register_buffer("residual_deviation", residual_deviation)

    def forward(
        self, x: Tensor, noise_scalar: Tensor, prediction: Tensor, state: Tensor, scalars: Tensor
    ) -> Tensor:
        """x, prediction, state [B, K, d], noise_scalar [B], scalars [B, S] to [B, K, d]."""
        tokens = torch.cat([x, prediction, state], dim=-1)
        return self.network(tokens, torch.cat([scalars, noise_scalar[:, None]], dim=-1))

    def apply_residual(self, prediction: Tensor, residual: Tensor) -> Tensor:
        """prediction [B, K, d] corrected by a residual in its own units."""
        return prediction + residual * self.residual_deviation
