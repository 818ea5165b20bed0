"""What evaluation rolls out: the models behind the rows of the result table, each for one problem.

The operator runs to the end first, once per trajectory; a generative model then corrects the whole forecast at once,
and nothing is fed back. Of a map (2D Darcy), which goes through the chain as two frames, one step is the whole map.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ups.errors import DataError
from ups.inference.correction import (
    Sampler,
    consistency_sampler,
    diffusion_sampler,
    draw,
    mean_sampler,
    resampled,
    zero_noise_sampler,
)
from ups.models.operators import LatentOperator
from ups.models.residual import ResidualNetwork
from ups.objectives.evolution import forecast

CONSISTENCY_CALLS = (1, 2)
"""The ways in which the consistency student is sampled."""

Rollout = Callable[[Tensor, Tensor, int, torch.Generator], Tensor]
"""(first latents [n, K, d], scalars [n, S], steps, generator) to forecasts [n, members, steps, K, d]."""


@dataclass(frozen=True)
class Forecaster:
    """One model of the table.

    Attributes:
        members: size of its ensemble. 1: deterministic.
        calls_per_step: network calls per time step, for all members together.
        calls_per_member: further calls per member, for all steps together.
    """

    name: str
    rollout: Rollout
    members: int
    calls_per_step: int
    calls_per_member: int = 0


def operator_forecaster(operator: LatentOperator, problem: str) -> Forecaster:
    """The operator alone."""

    def forecasts(first: Tensor, scalars: Tensor, steps: int, _: torch.Generator) -> Tensor:
        return forecast(operator, first, scalars, problem, steps)[:, None]

    return Forecaster("operator", forecasts, 1, 1)


def linear_forecasters(operator: LatentOperator, problem: str) -> list[Forecaster]:
    """The best linear map of a step, alone; none where the problem is too large for one."""
    if not operator.has_linear(problem):
        return []

    def forecasts(first: Tensor, _scalars: Tensor, steps: int, _: torch.Generator) -> Tensor:
        states = [first]
        for _step in range(steps):
            states.append(operator.linear_step(states[-1], problem))
        return torch.stack(states[1:], dim=1)[:, None]

    return [Forecaster("linear", forecasts, 1, 0)]


def dressed_forecaster(
    operator: LatentOperator, network: ResidualNetwork, pool: Tensor, problem: str, *, members: int
) -> Forecaster:
    """The operator with past errors put on: what an ensemble costs that learns nothing.

    pool: residuals of trajectories that the operator did not fit, in their steepness, [N, T, K, d].
    """
    layout = network.network.shapes[problem].layout

    def dressed(first: Tensor, scalars: Tensor, steps: int, generator: torch.Generator) -> Tensor:
        forecasts = _forecasts(operator, network, first, scalars, problem)
        drawn = resampled(pool, len(first), members, layout, generator)
        scale = network.steepness(forecasts, problem)
        return (forecasts[:, None] + scale[:, None] * drawn)[:, :, : _within(steps, network, problem)]

    return Forecaster("operator_dressed", dressed, members, 1)


def diffusion_forecasters(
    operator: LatentOperator,
    network: ResidualNetwork,
    problem: str,
    *,
    steps: int,
    sigma_min: float,
    centre: float,
    members: int,
) -> list[Forecaster]:
    """The diffusion model; the same network started from zero noise, the control of the ablation; and its mean."""
    calls = 2 * steps - 1
    return [
        _corrected(
            "diffusion",
            operator,
            network,
            problem,
            diffusion_sampler(steps, sigma_min, centre),
            members,
            calls,
        ),
        _corrected(
            "diffusion_zero_noise",
            operator,
            network,
            problem,
            zero_noise_sampler(steps, sigma_min, centre),
            1,
            calls,
        ),
        _corrected("diffusion_mean", operator, network, problem, mean_sampler(), 1, 1),
    ]


def consistency_forecasters(
    operator: LatentOperator,
    network: ResidualNetwork,
    problem: str,
    *,
    sigma_min: float,
    second_sigma: float,
    members: int,
) -> list[Forecaster]:
    """The consistency student in one and in two calls."""
    return [
        _corrected(
            f"consistency_{calls}",
            operator,
            network,
            problem,
            consistency_sampler(calls, second_sigma, sigma_min),
            members,
            calls,
            way,
        )
        for way, calls in enumerate(CONSISTENCY_CALLS)
    ]


def _corrected(
    name: str,
    operator: LatentOperator,
    network: ResidualNetwork,
    problem: str,
    sampler: Sampler,
    members: int,
    calls: int,
    way: int = 0,
) -> Forecaster:
    """The operator's forecast, corrected by samples of its residual. way: of sampling, see `ResidualNetwork`."""

    def corrected(first: Tensor, scalars: Tensor, steps: int, generator: torch.Generator) -> Tensor:
        forecasts = _forecasts(operator, network, first, scalars, problem)
        samples = draw(network, sampler, forecasts, scalars, problem, members, generator)
        corrections = network.corrections(samples, forecasts, problem, way)
        ensemble = forecasts[:, None] + operator.conserving(corrections, problem)
        return ensemble[:, :, : _within(steps, network, problem)]

    return Forecaster(name, corrected, members, 1, calls)


def _forecasts(
    operator: LatentOperator, network: ResidualNetwork, first: Tensor, scalars: Tensor, problem: str
) -> Tensor:
    """The operator's forecasts of all leads that the residual was learnt on, [n, T, K, d]."""
    return forecast(operator, first, scalars, problem, network.leads[problem])


def _within(steps: int, network: ResidualNetwork, problem: str) -> int:
    """The steps that are asked for, if the residual of so many was learnt.

    Raises:
        DataError: it was not.
    """
    leads = network.leads[problem]
    if steps > leads:
        raise DataError(
            f"asks for {steps} steps, and the residual of {problem} was learnt for {leads}",
            where="forecast",
            fix=f"ask for at most {leads} steps",
        )
    return steps
