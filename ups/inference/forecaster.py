"""What evaluation rolls out: the steppers behind the rows of the result table, each for one problem.

Of a map (2D Darcy), which goes through the chain as two frames, one step is the whole map.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ups.diffusion.consistency import consistency_sample, jump
from ups.diffusion.edm import denoise, heun_sample, noise_levels
from ups.models.operator import LatentOperator
from ups.models.residual import ResidualNetwork

Step = Callable[[Tensor, Tensor, torch.Generator], Tensor]
"""(latents [B, K, d], scalars [B, S], generator) to the latents one time step later."""


@dataclass(frozen=True)
class Forecaster:
    """One model of the table.

    Attributes:
        members: size of its ensemble; each member is rolled out on its own. 1: deterministic.
        calls_per_step: network calls per time step and member.
    """

    name: str
    step: Step
    members: int
    calls_per_step: int


def operator_forecaster(operator: LatentOperator, problem: str) -> Forecaster:
    """The operator alone."""
    return Forecaster("operator", lambda z, scalars, _: operator(z, scalars, problem), 1, 1)


def diffusion_forecasters(
    operator: LatentOperator,
    network: ResidualNetwork,
    problem: str,
    *,
    steps: int,
    sigma_min: float,
    sigma_max: float,
    rho: float,
    members: int,
) -> list[Forecaster]:
    """The diffusion model, and the same network started from zero noise: the control of the ablation."""
    levels = noise_levels(steps, sigma_min=sigma_min, sigma_max=sigma_max, rho=rho)

    def step(z: Tensor, scalars: Tensor, noise: Tensor) -> Tensor:
        prediction = operator(z, scalars, problem)
        residual = heun_sample(
            lambda x, sigma: denoise(network, x, sigma, prediction, z, scalars, problem), noise, levels
        )
        return network.apply_residual(prediction, residual, problem)

    calls = 1 + 2 * steps - 1
    return [
        Forecaster("diffusion", lambda z, s, g: step(z, s, _noise(z, g)), members, calls),
        Forecaster("diffusion_zero_noise", lambda z, s, _: step(z, s, torch.zeros_like(z)), 1, calls),
    ]


def consistency_forecasters(
    operator: LatentOperator,
    network: ResidualNetwork,
    problem: str,
    *,
    sigma_min: float,
    sigma_max: float,
    second_sigma: float,
    members: int,
) -> list[Forecaster]:
    """The consistency student in one and in two calls."""

    def step(z: Tensor, scalars: Tensor, generator: torch.Generator, sigmas: list[float]) -> Tensor:
        prediction = operator(z, scalars, problem)
        residual = consistency_sample(
            lambda x, sigma: jump(network, x, sigma, prediction, z, scalars, problem, sigma_min=sigma_min),
            [_noise(z, generator) for _ in sigmas],
            sigmas,
            sigma_min,
        )
        return network.apply_residual(prediction, residual, problem)

    one, two = [sigma_max], [sigma_max, second_sigma]
    return [
        Forecaster("consistency_1", lambda z, s, g: step(z, s, g, one), members, 2),
        Forecaster("consistency_2", lambda z, s, g: step(z, s, g, two), members, 3),
    ]


def _noise(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator, device=like.device, dtype=like.dtype)
