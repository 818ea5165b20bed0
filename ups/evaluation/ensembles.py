"""The ensembles of the result table: forecasts of the operator, corrected by samples of their residual.

The operator runs to the end first, once per trajectory; a generative model then corrects the whole forecast at once,
and nothing is fed back.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ups.config.conditioning import diffusion_calls
from ups.errors import DataError
from ups.evaluation.correction import (
    Sampler,
    consistency_sampler,
    diffusion_sampler,
    draw,
    mean_sampler,
    resampled,
    zero_noise_sampler,
)
from ups.evaluation.forecaster import Forecaster, OperatorForecasts
from ups.models.residual import ResidualNetwork

CONSISTENCY_CALLS = (1, 2)
"""The ways in which the consistency student is sampled."""


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
    forecasts: OperatorForecasts, network: ResidualNetwork, past: PastErrors, *, members: int
) -> list[Forecaster]:
    """The operator plus past errors drawn at random, as they were or scaled (ensemble dressing): no network is trained."""
    operator, problem = forecasts.operator, forecasts.codec.problem
    token_grid = network.network.shapes[problem].token_grid

    def with_errors(name: str, residuals: Tensor, *, scaled: bool) -> Forecaster:
        def dressed(first: Tensor, scalars: Tensor, steps: int, generator: torch.Generator) -> Tensor:
            leads = forecasts(first, scalars, network.leads[problem])
            errors = resampled(residuals, len(first), members, token_grid, generator)
            if scaled:
                errors = operator.conserving(network.deviation(leads, problem)[:, None] * errors, problem)
            return (leads.mean[:, None] + errors)[:, :, : _within(steps, network, problem)]

        return Forecaster(
            name, dressed, members, forecasts.calls_per_step, shared_seconds=forecasts.shared_seconds
        )

    return [
        with_errors("operator_dressed", past.errors, scaled=False),
        with_errors("operator_dressed_scaled", past.scaled, scaled=True),
    ]


def diffusion_forecasters(
    forecasts: OperatorForecasts,
    network: ResidualNetwork,
    *,
    steps: int,
    sigma_min: float,
    centre: float,
    members: int,
) -> list[Forecaster]:
    """The diffusion model; the same network started from zero noise, the control of the ablation; and its mean."""
    calls = diffusion_calls(steps)
    return [
        _corrected(
            "diffusion",
            forecasts,
            network,
            diffusion_sampler(steps, sigma_min, centre),
            members,
            calls,
        ),
        _corrected(
            "diffusion_zero_noise",
            forecasts,
            network,
            zero_noise_sampler(steps, sigma_min, centre),
            1,
            calls,
        ),
        _corrected("diffusion_mean", forecasts, network, mean_sampler(), 1, 1),
    ]


def consistency_forecasters(
    forecasts: OperatorForecasts,
    network: ResidualNetwork,
    *,
    sigma_min: float,
    second_sigma: float,
    members: int,
) -> list[Forecaster]:
    """The consistency student in one and in two calls."""
    return [
        _corrected(
            f"consistency_{calls}",
            forecasts,
            network,
            consistency_sampler(calls, second_sigma, sigma_min),
            members,
            calls,
            way,
        )
        for way, calls in enumerate(CONSISTENCY_CALLS)
    ]


def _corrected(
    name: str,
    forecasts: OperatorForecasts,
    network: ResidualNetwork,
    sampler: Sampler,
    members: int,
    calls: int,
    way: int = 0,
) -> Forecaster:
    """The operator's forecast, corrected by samples of its residual. way: of sampling, see `ResidualNetwork`."""
    operator, problem = forecasts.operator, forecasts.codec.problem

    def corrected(first: Tensor, scalars: Tensor, steps: int, generator: torch.Generator) -> Tensor:
        leads = forecasts(first, scalars, network.leads[problem])
        samples = draw(network, sampler, leads, scalars, problem, members, generator)
        corrections = network.corrections(samples, leads, problem, way)
        ensemble = leads.mean[:, None] + operator.conserving(corrections, problem)
        return ensemble[:, :, : _within(steps, network, problem)]

    return Forecaster(name, corrected, members, forecasts.calls_per_step, calls, forecasts.shared_seconds)


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
