"""Generative models of the operator's residual: a diffusion model and its consistency student.

Both predict r = (z_next - prediction) / residual_deviation, per channel, given the operator's prediction
and the state it came from, and share one network, so that the student starts from the teacher's weights.
"""

import torch
from torch import Tensor, nn

from ups.diffusion.consistency import boundary
from ups.diffusion.edm import precondition
from ups.models.latent_transformer import LatentTransformer


class ResidualModel(nn.Module):
    """The shared network and its conditioning."""

    residual_deviation: Tensor

    def __init__(self, network: LatentTransformer, residual_deviation: Tensor) -> None:
        """network: inputs 3 d, outputs d, scalars S + 1; residual_deviation: [d], standardised latents."""
        super().__init__()
        self.network = network
        self.register_buffer("residual_deviation", residual_deviation)

    def _raw(
        self, x: Tensor, sigma: Tensor, prediction: Tensor, state: Tensor, scalars: Tensor
    ) -> Tensor:
        _, _, c_in, c_noise = precondition(sigma)
        tokens = torch.cat([c_in[:, None, None] * x, prediction, state], dim=-1)
        return self.network(tokens, torch.cat([scalars, c_noise[:, None]], dim=-1))

    def apply_residual(self, prediction: Tensor, residual: Tensor) -> Tensor:
        """prediction [B, K, d] corrected by a residual in its own units."""
        return prediction + residual * self.residual_deviation


class ResidualDiffusion(ResidualModel):
    """Denoiser D(x; sigma) with EDM preconditioning (eq. 7)."""

    def forward(
        self, x: Tensor, sigma: Tensor, prediction: Tensor, state: Tensor, scalars: Tensor
    ) -> Tensor:
        """x, prediction, state [B, K, d], sigma [B], scalars [B, S] to the expected residual [B, K, d]."""
        c_skip, c_out, _, _ = precondition(sigma)
        raw = self._raw(x, sigma, prediction, state, scalars)
        return c_skip[:, None, None] * x + c_out[:, None, None] * raw


class ResidualConsistency(ResidualModel):
    """Consistency function f(x; sigma), the identity at sigma_min whatever the weights."""

    def __init__(self, network: LatentTransformer, residual_deviation: Tensor, *, sigma_min: float) -> None:
        super().__init__(network, residual_deviation)
        self.sigma_min = sigma_min

    def forward(
        self, x: Tensor, sigma: Tensor, prediction: Tensor, state: Tensor, scalars: Tensor
    ) -> Tensor:
        """Same arguments as the diffusion model; returns the residual at the trajectory's end."""
        c_skip, c_out = boundary(sigma, self.sigma_min)
        raw = self._raw(x, sigma, prediction, state, scalars)
        return c_skip[:, None, None] * x + c_out[:, None, None] * raw
