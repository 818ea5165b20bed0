"""Denoising of the operator's residual."""

import torch
from torch import Tensor, nn

from ups.data.batch import Batch
from ups.diffusion.edm import denoise, loss_weight
from ups.models.residual import ResidualNetwork
from ups.objectives.objective import Loss


class ResidualDenoising:
    """EDM's training objective (eq. 8) on r = (z_next - prediction) / residual_deviation."""

    def __init__(self, *, mean_log_sigma: float, std_log_sigma: float) -> None:
        self.mean_log_sigma = mean_log_sigma
        self.std_log_sigma = std_log_sigma

    def __call__(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Loss:
        state, prediction, residual = residual_example(model, batch)
        normal = torch.randn(len(state), generator=generator, device=state.device)
        sigma = torch.exp(self.mean_log_sigma + self.std_log_sigma * normal)
        noise = torch.randn(state.shape, generator=generator, device=state.device)
        noisy = residual + sigma[:, None, None] * noise
        denoised = denoise(model, noisy, sigma, prediction, state, batch.scalars, batch.problem)
        errors = (denoised.float() - residual).square().mean(dim=(1, 2))
        return Loss((loss_weight(sigma) * errors).mean(), {"L_denoise": errors.mean()})


def residual_example(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """State, prediction and residual in its own units, each [B, K, d]."""
    if batch.latents is None or batch.predictions is None:
        raise ValueError("this objective reads latents and the operator's predictions of them")
    state, target = batch.latents[:, 0], batch.latents[:, 1]
    return state, batch.predictions, (target - batch.predictions) / network_of(model).deviation(batch.problem)


def network_of(model: nn.Module) -> ResidualNetwork:
    """The model as what this objective trains."""
    if not isinstance(model, ResidualNetwork):
        raise TypeError(f"this objective trains a ResidualNetwork, not a {type(model).__name__}")
    return model
