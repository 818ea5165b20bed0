"""Consistency parametrisation (Song et al. 2023, arXiv:2303.01469, eq. 5 and appendix C), sigma_data = 1."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ups.diffusion.edm import precondition

ConsistencyFunction = Callable[[Tensor, Tensor], Tensor]
"""(x [B, K, d], sigma [B]) to the clean x at the end of its trajectory, [B, K, d]."""


def boundary(sigma: Tensor, sigma_min: float) -> tuple[Tensor, Tensor]:
    """c_skip and c_out with c_skip(sigma_min) = 1 and c_out(sigma_min) = 0, so that f(x, sigma_min) = x.

    c_skip = 1 / ((sigma - sigma_min)^2 + 1),  c_out = (sigma - sigma_min) / sqrt(sigma^2 + 1).
    For sigma_min -> 0 both are EDM's, which is what lets training start from the diffusion weights.
    """
    shifted = sigma - sigma_min
    return 1 / (shifted.square() + 1), shifted * (sigma.square() + 1).rsqrt()


def jump(
    network: nn.Module,
    x: Tensor,
    sigma: Tensor,
    prediction: Tensor,
    state: Tensor,
    scalars: Tensor,
    problem: str,
    *,
    sigma_min: float,
) -> Tensor:
    """The consistency function f(x; sigma): to the end of x's trajectory, in one call, [B, K, d].

    The identity at sigma_min whatever the weights. Arguments as `ups.diffusion.edm.denoise`.
    """
    c_skip, c_out = boundary(sigma, sigma_min)
    _, _, c_in, c_noise = precondition(sigma)
    raw = network(c_in[:, None, None] * x, c_noise, prediction, state, scalars, problem)
    return c_skip[:, None, None] * x + c_out[:, None, None] * raw


def consistency_sample(
    function: ConsistencyFunction, noises: list[Tensor], sigmas: list[float], sigma_min: float
) -> Tensor:
    """Algorithm 1 (multistep consistency sampling): one call per noise level.

    Args:
        noises: unit normal [B, K, d], one per call.
        sigmas: decreasing noise levels, sigma_max first.

    Returns:
        Clean tokens [B, K, d].
    """
    x = torch.zeros_like(noises[0])
    for noise, sigma in zip(noises, sigmas, strict=True):
        spread = sigma if sigma == sigmas[0] else (sigma**2 - sigma_min**2) ** 0.5
        x = x + spread * noise
        x = function(x, x.new_full((len(x),), sigma))
    return x
