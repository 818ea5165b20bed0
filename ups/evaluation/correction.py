"""Samples of the operator's residual for whole forecasts, and what is fitted on held-back trajectories."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ups.models.codec import ProblemCodec
from ups.models.consistency import consistency_sample
from ups.models.edm import Network, midpoint_sample, sampling_angles
from ups.models.forecast import Forecast
from ups.models.operators import LatentOperator
from ups.models.residual import ResidualNetwork
from ups.models.token_grid import TokenGrid

Sampler = Callable[[Network, Tensor, torch.Generator], Tensor]
"""(raw network, tokens [B, T, K, d] of the shape that is wanted, generator) to clean tokens of that shape."""

# Trajectories, of 16 members: larger batches leave a core's cache, and take longer.
_AT_ONCE_CPU, _AT_ONCE_GPU = 4, 64


def diffusion_sampler(steps: int, sigma_min: float, centre: float) -> Sampler:
    """From pure noise: 2 * steps - 1 calls."""
    angles = sampling_angles(steps, sigma_min=sigma_min, centre=centre)
    return lambda network, like, generator: midpoint_sample(network, _noise(like, generator), angles)


def zero_noise_sampler(steps: int, sigma_min: float, centre: float) -> Sampler:
    """The same from no noise at all: the control of the ablation."""
    angles = sampling_angles(steps, sigma_min=sigma_min, centre=centre)
    return lambda network, like, _: midpoint_sample(network, torch.zeros_like(like), angles)


def mean_sampler() -> Sampler:
    """The mean of n that the denoiser expects where it sees nothing but noise, which is rather r's median: 1 call."""
    return lambda network, like, _: network(torch.zeros_like(like), like.new_full((len(like),), math.pi / 2))


def consistency_sampler(calls: int, second_sigma: float, sigma_min: float) -> Sampler:
    """The consistency student in one or more calls."""
    second, last = math.atan(second_sigma), math.atan(sigma_min)
    return lambda network, like, generator: consistency_sample(
        network, [_noise(like, generator) for _ in range(calls)], second, last
    )


def draw(
    network: ResidualNetwork,
    sampler: Sampler,
    forecasts: Forecast,
    scalars: Tensor,
    problem: str,
    members: int,
    generator: torch.Generator,
) -> Tensor:
    """Samples of r [n, members, T, K, d] for n forecasts with scalars [n, S]."""
    context, conditions = (
        values.repeat_interleave(members, dim=0)
        for values in network.conditioning(forecasts, scalars, problem)
    )
    like = forecasts.mean.repeat_interleave(members, dim=0)
    samples = sampler(lambda y, angle: network(y, angle, context, conditions, problem), like, generator)
    return network.in_deviations(samples, problem).unflatten(0, (len(forecasts), members))


def ungated(
    operator: LatentOperator,
    network: ResidualNetwork,
    sampler: Sampler,
    forecasts: Forecast,
    scalars: Tensor,
    problem: str,
    members: int,
    generator: torch.Generator,
) -> Callable[[slice], Tensor]:
    """A function of rows: their corrected forecasts [n, members, T, K, d], without gates and spread factors."""

    def corrected(rows: slice) -> Tensor:
        given = forecasts[rows]
        samples = draw(network, sampler, given, scalars[rows], problem, members, generator)
        correction = network.deviation(given, problem)[:, None] * samples
        return given.mean[:, None] + operator.conserving(correction, problem)

    return corrected


@dataclass(frozen=True)
class Calibration:
    """Per lead, [T]: the gate of an ensemble's mean correction, and the factor of its spread."""

    gate: Tensor
    spread: Tensor


@torch.no_grad()
def calibration(
    sample: Callable[[slice], Tensor],
    forecasts: Forecast,
    codec: ProblemCodec,
    truth: Tensor,
    *,
    time_step: float,
    parameters: dict[str, float],
) -> Calibration:
    """Gates and factors that fit trajectories of the validation split best, in closed form, on decoded fields.

    The gate is the least-squares factor of the mean correction, kept within [0, 1]: the corrected mean is no worse
    than the forecast on these trajectories. The factor makes the spread equal the error of the gated mean:
    (M + 1) / M mean variance = mean square error (Fortin et al. 2014, eq. 15). Errors count relative to the
    square norm of their trajectory and field, as in the headline metric.

    Args:
        sample: rows to ungated members [n, M, T, K, d] of these rows.
        forecasts: the operator's, of n trajectories.
        truth: [n, 1 + T, *grid, C] physical, whole: an encoder of points sees points of its first frames.
    """
    leads = forecasts.mean.shape[1]
    elapsed = time_step * torch.arange(1, leads + 1, device=truth.device)
    scored = codec.shape.scored_fields
    # Sums over trajectories, points and fields, per lead.
    products, squares, errors, variances = (truth.new_zeros(leads, dtype=torch.float64) for _ in range(4))
    members = 0
    at_once = _AT_ONCE_GPU if truth.is_cuda else _AT_ONCE_CPU
    for start in range(0, len(truth), at_once):
        rows = slice(start, start + at_once)
        frame = codec.frame(codec.seen(truth[rows, :1])[:, 0], parameters)
        latents = sample(rows)
        members = latents.shape[1]
        times = elapsed.expand(len(latents), -1)
        every = times.repeat_interleave(members, dim=0)
        decoded = scored(codec.decode(latents.flatten(0, 1), every, frame.repeat(members)))
        ensemble = decoded.unflatten(0, latents.shape[:2])
        forecast = scored(codec.decode(forecasts.mean[rows], times, frame))
        target = scored(truth[rows, 1:].flatten(2, -2))
        weight = 1 / target.square().sum(dim=(1, 2), keepdim=True)
        error, correction = target - forecast, ensemble.mean(dim=1) - forecast
        for total, values in (
            (products, error * correction),
            (squares, correction.square()),
            (errors, error.square()),
            (variances, ensemble.var(dim=1)),
        ):
            total += (weight * values).double().sum(dim=(0, 2, 3))
    gate = torch.where(squares > 0, products / squares, 0.0).clamp(0, 1)
    left = errors - 2 * gate * products + gate.square() * squares
    spread = torch.where(variances > 0, left / variances * members / (members + 1), 0.0).sqrt()
    return Calibration(gate.float(), spread.float())


def resampled(
    residuals: Tensor, count: int, members: int, token_grid: TokenGrid, generator: torch.Generator
) -> Tensor:
    """Residual trajectories drawn out of past ones [N, T, K, d], each shifted by random tokens along periodic axes.

    [count, members, T, K, d].
    """
    device = residuals.device
    chosen = residuals[torch.randint(len(residuals), (count * members,), generator=generator, device=device)]
    grid = chosen.unflatten(2, token_grid.tokens)
    for axis, (tokens, wraps) in enumerate(zip(token_grid.tokens, token_grid.periodic, strict=True), start=2):
        if wraps:
            shift = torch.randint(tokens, (len(grid), 1), generator=generator, device=device)
            index = (torch.arange(tokens, device=device) + shift) % tokens
            index = index.view(len(grid), *(-1 if place == axis else 1 for place in range(1, grid.ndim)))
            grid = grid.take_along_dim(index, dim=axis)
    return grid.flatten(2, -2).unflatten(0, (count, members))


def _noise(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator, device=like.device, dtype=like.dtype)
