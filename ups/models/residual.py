"""The network behind the generative models of the operator's residual."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ups.models.embedding import module_key
from ups.models.latent_transformer import LatentTransformer


class ResidualNetwork(nn.Module):
    """Raw network F of a diffusion model and of its consistency student, which starts from its weights.

    The residual is r = (z_next - prediction) / deviation, per problem and channel. What surrounds F (skip
    connections, noise scaling) is mathematics, in `ups.diffusion`.
    """

    def __init__(self, network: LatentTransformer, problems: Iterable[str], latent_dim: int) -> None:
        """network: inputs 3 d, outputs d, one extra scalar. Deviations are 1 until they are set."""
        super().__init__()
        self.network = network
        for problem in problems:
            self.register_buffer(_deviation_key(problem), torch.ones(latent_dim))

    def deviation(self, problem: str) -> Tensor:
        """Deviation of the residual, [d], in standardised latents."""
        return self.get_buffer(_deviation_key(problem))

    def forward(
        self,
        x: Tensor,
        noise_scalar: Tensor,
        prediction: Tensor,
        state: Tensor,
        scalars: Tensor,
        problem: str,
    ) -> Tensor:
        """x, prediction, state [B, K, d], noise_scalar [B], scalars [B, S] to [B, K, d]."""
        tokens = torch.cat([x, prediction, state], dim=-1)
        return self.network(tokens, torch.cat([scalars, noise_scalar[:, None]], dim=-1), problem)

    def apply_residual(self, prediction: Tensor, residual: Tensor, problem: str) -> Tensor:
        """prediction [B, K, d] corrected by a residual in its own units."""
        return prediction + residual * self.deviation(problem)


def _deviation_key(problem: str) -> str:
    return f"residual_deviation_{module_key(problem)}"
