"""Diffusion in EDM form (Karras et al. 2022, arXiv:2206.00364) with the noise level as an angle.

Data have unit deviation (sigma_data = 1). With sigma = tan(a), EDM's scaled input x / sqrt(sigma^2 + 1) is

    y = cos(a) clean + sin(a) noise,

its preconditioning (Table 1, column "Ours") is a rotation, D = cos(a) y + sin(a) F(y, a), and its ODE of the
probability flow is dy/da = -F (the form of Lu and Song 2024, arXiv:2410.11081, without their factor). All its
weights of the loss are 1.

The angle pi/2 is noise without end: y is unit normal there whatever mean and deviation the data have, so a sampler
that starts there has no error of the start. (One that starts at sigma_max * noise leaves out the data's own mean and
deviation: sigma_max 3 and five steps gave 65 % of a mean of 1.) For data of unit deviation F is constant along the
flow, and few steps are enough.

Angles have shape [B], tokens [B, ...].
"""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

Network = Callable[[Tensor, Tensor], Tensor]
"""The raw network F: (y [B, ...], angle [B]) to [B, ...]."""

_WARP = 2.0  # steps shrink towards the data, where those of small deviation take shape


def wide(values: Tensor, like: Tensor) -> Tensor:
    """Values [B] to be multiplied with [B, ...]."""
    return values.view(-1, *(1,) * (like.ndim - 1))


def noised(clean: Tensor, noise: Tensor, angle: Tensor) -> Tensor:
    """y at a noise level, from clean tokens and unit normal noise, all [B, ...]."""
    return wide(angle.cos(), clean) * clean + wide(angle.sin(), clean) * noise


def raw_target(clean: Tensor, noise: Tensor, angle: Tensor) -> Tensor:
    """What F should be for one pair: -dy/da. Its mean over the pairs of a y is that y's F."""
    return wide(angle.sin(), clean) * clean - wide(angle.cos(), clean) * noise


def denoised(y: Tensor, raw: Tensor, angle: Tensor) -> Tensor:
    """D(y; angle) of eq. 7: the expected clean tokens."""
    return wide(angle.cos(), y) * y + wide(angle.sin(), y) * raw


def sampling_angles(steps: int, *, sigma_min: float, centre: float) -> Tensor:
    """Decreasing noise levels [steps] float64: pi/2 first, atan(sigma_min) last.

    centre: noise level around which they are dense. Neighbouring leads and tokens err alike, so what many of them
    have in common is seen through noise of several deviations, and steps are needed there.
    """
    last = (math.atan(sigma_min / centre) / (math.pi / 2)) ** (1 / _WARP)
    even = math.pi / 2 * torch.linspace(1, last, steps, dtype=torch.float64) ** _WARP
    # atan(centre * tan(even)), also at pi/2.
    return torch.atan2(centre * even.sin(), even.cos().clamp_min(0))


def midpoint_step(network: Network, y: Tensor, angle: Tensor, following: Tensor) -> Tensor:
    """One step of the midpoint method along the flow, from angle [B] to following [B]."""
    step = angle - following
    middle = y + wide(step / 2, y) * network(y, angle)
    return y + wide(step, y) * network(middle, angle - step / 2)


def midpoint_sample(network: Network, noise: Tensor, angles: Tensor) -> Tensor:
    """Along the flow from pure noise to clean tokens.

    The midpoint method, where EDM has Heun's: of components of .3 to 8 deviations, 8 steps around the centre 3
    keep 96 to 101 %, Heun's 85 to 104 %.

    Args:
        noise: unit normal [B, ...]; zeros give the deterministic control of the ablation.
        angles: as from `sampling_angles`.

    Returns:
        Clean tokens [B, ...], after 2 * steps - 1 calls of the network.
    """
    y, count = noise, len(noise)
    levels = [y.new_full((count,), angle) for angle in angles.tolist()]
    for angle, following in pairwise(levels):
        y = midpoint_step(network, y, angle, following)
    return denoised(y, network(y, levels[-1]), levels[-1])
