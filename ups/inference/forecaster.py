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
from ups.models.codec import ProblemCodec
from ups.models.frame import Frame
from ups.models.operators import LatentOperator
from ups.models.residual import Forecast, ResidualNetwork
from ups.objectives.evolution import advance, forecast

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


def operator_forecaster(
    operator: LatentOperator, codec: ProblemCodec, *, averaged: bool = True
) -> Forecaster:
    """The operator alone.

    averaged: over its symmetries, as every other row is; else the forecast of one application.
    """

    def forecasts(first: Tensor, scalars: Tensor, steps: int, _: torch.Generator) -> Tensor:
        if not averaged:
            return advance(operator, first, scalars, codec.problem, steps)[:, None]
        return forecast(operator, codec, first, scalars, steps).mean[:, None]

    return Forecaster("operator", forecasts, 1, _elements(operator, codec) if averaged else 1)


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


@dataclass(frozen=True)
class PastErrors:
    """Residuals of trajectories that the operator did not fit.

    Attributes:
        errors: as they are, in standardised latents, [N, T, K, d].
        scaled: in the deviations of their forecasts, likewise.
    """

    errors: Tensor
    scaled: Tensor


def dressed_forecasters(
    operator: LatentOperator,
    network: ResidualNetwork,
    past: PastErrors,
    codec: ProblemCodec,
    *,
    members: int,
) -> list[Forecaster]:
    """The operator with past errors put on, as they were or scaled: ensembles that learn no network."""
    layout = network.network.shapes[codec.problem].layout

    def with_errors(name: str, pool: Tensor, *, scaled: bool) -> Forecaster:
        def dressed(first: Tensor, scalars: Tensor, steps: int, generator: torch.Generator) -> Tensor:
            forecasts = _forecasts(operator, network, codec, first, scalars)
            errors = resampled(pool, len(first), members, layout, generator)
            if scaled:
                errors = network.deviation(forecasts, codec.problem)[:, None] * errors
                errors = operator.conserving(errors, codec.problem)
            return (forecasts.mean[:, None] + errors)[:, :, : _within(steps, network, codec.problem)]

        return Forecaster(name, dressed, members, _elements(operator, codec))

    return [
        with_errors("operator_dressed", past.errors, scaled=False),
        with_errors("operator_dressed_scaled", past.scaled, scaled=True),
    ]


def diffusion_forecasters(
    operator: LatentOperator,
    network: ResidualNetwork,
    codec: ProblemCodec,
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
            codec,
            diffusion_sampler(steps, sigma_min, centre),
            members,
            calls,
        ),
        _corrected(
            "diffusion_zero_noise",
            operator,
            network,
            codec,
            zero_noise_sampler(steps, sigma_min, centre),
            1,
            calls,
        ),
        _corrected("diffusion_mean", operator, network, codec, mean_sampler(), 1, 1),
    ]


def consistency_forecasters(
    operator: LatentOperator,
    network: ResidualNetwork,
    codec: ProblemCodec,
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
            codec,
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
    codec: ProblemCodec,
    sampler: Sampler,
    members: int,
    calls: int,
    way: int = 0,
) -> Forecaster:
    """The operator's forecast, corrected by samples of its residual. way: of sampling, see `ResidualNetwork`."""

    def corrected(first: Tensor, scalars: Tensor, steps: int, generator: torch.Generator) -> Tensor:
        problem = codec.problem
        forecasts = _forecasts(operator, network, codec, first, scalars)
        samples = draw(network, sampler, forecasts, scalars, problem, members, generator)
        corrections = network.corrections(samples, forecasts, problem, way)
        ensemble = forecasts.mean[:, None] + operator.conserving(corrections, problem)
        return ensemble[:, :, : _within(steps, network, problem)]

    return Forecaster(name, corrected, members, _elements(operator, codec), calls)


def _forecasts(
    operator: LatentOperator, network: ResidualNetwork, codec: ProblemCodec, first: Tensor, scalars: Tensor
) -> Forecast:
    """The operator's forecasts of all leads that the residual was learnt on."""
    return forecast(operator, codec, first, scalars, network.leads[codec.problem])


def _elements(operator: LatentOperator, codec: ProblemCodec) -> int:
    """Forecasts that one is the mean of."""
    symmetries = operator.average.get(codec.problem, ())
    return len(Frame.group(codec.shape, torch.zeros(1, *codec.shape.grid, codec.shape.channels), symmetries))


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
