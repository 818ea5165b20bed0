"""Noise levels, preconditioning and sampler of EDM (Karras et al. 2022, arXiv:2206.00364).

Everything is in units in which the data have unit deviation (sigma_data = 1): the residual is divided by
its own per-channel deviation before it comes here. Noise levels have shape [B] and tokens [B, K, d].
"""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""(x [B, K, d], sigma [B]) to the expected clean x, [B, K, d]."""


def noise_levels(steps: int, *, sigma_min: float, sigma_max: float, rho: float) -> Tensor:
    """Eq. 5 without its final zero: `steps` levels from sigma_max down to sigma_min, float64 [steps]."""
    if steps == 1:
        return torch.tensor([sigma_max], dtype=torch.float64)
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    return (high + ramp * (low - high)) ** rho


def precondition(sigma: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """c_skip, c_out, c_in, c_noise of Table 1 (column "Ours") for sigma_data = 1; each like sigma."""
    variance = sigma.square() + 1
    return 1 / variance, sigma * variance.rsqrt(), variance.rsqrt(), sigma.log() / 4


def loss_weight(sigma: Tensor) -> Tensor:
    """lambda(sigma) of Table 1 for sigma_data = 1: the squared error of the raw network has weight 1."""
    return (sigma.square() + 1) / sigma.square()


def denoise(
    network: nn.Module,
    x: Tensor,
    sigma: Tensor,
    prediction: Tensor,
    state: Tensor,
    scalars: Tensor,
    problem: str,
) -> Tensor:
    """D(x; sigma) of eq. 7 from the raw network F: the expected clean residual, [B, K, d].

    x, prediction, state [B, K, d], sigma [B], scalars [B, S]; problem: its name, for the network.
    """
    c_skip, c_out, c_in, c_noise = precondition(sigma)
    raw = network(c_in[:, None, None] * x, c_noise, prediction, state, scalars, problem)
    return c_skip[:, None, None] * x + c_out[:, None, None] * raw


def heun_sample(denoiser: Denoiser, noise: Tensor, levels: Tensor) -> Tensor:
    """Algorithm 1 without churn: the probability-flow ODE from sigma_max to 0 by Heun's method.

    Args:
        denoiser: D(x, sigma).
        noise: unit normal [B, K, d]; zeros give the deterministic control of the ablation.
        levels: decreasing noise levels [steps]; 0 is appended here.

    Returns:
        Clean tokens [B, K, d], after 2 * steps - 1 calls of the denoiser.
    """
    sigmas = [*levels.tolist(), 0.0]
    x = noise * sigmas[0]
    for sigma, following in pairwise(sigmas):
        slope = (x - denoiser(x, x.new_full((len(x),), sigma))) / sigma
        euler = x + (following - sigma) * slope
        if following > 0:
            slope_after = (euler - denoiser(euler, x.new_full((len(x),), following))) / following
            euler = x + (following - sigma) * 0.5 * (slope + slope_after)
        x = euler
    return x


def heun_step(denoiser: Denoiser, x: Tensor, sigma: Tensor, following: Tensor) -> Tensor:
    """One Heun step with a noise level per sample: x [B, K, d] from sigma [B] to following [B], both > 0."""
    step = (following - sigma)[:, None, None]
    slope = (x - denoiser(x, sigma)) / sigma[:, None, None]
    euler = x + step * slope
    slope_after = (euler - denoiser(euler, following)) / following[:, None, None]
    return x + step * 0.5 * (slope + slope_after)
