"""What evaluation rolls out: the models behind the rows of the result table, each for one problem.

The operator runs to the end first, once per trajectory; a generative model then corrects the whole forecast at once,
and nothing is fed back. Of a map (2D Darcy), which goes through the chain as two frames, one step is the whole map.
"""

import time
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
        owed: seconds of the operator's forecasts that were made for another row and used for this one, since it was
            asked last.
    """

    name: str
    rollout: Rollout
    members: int
    calls_per_step: int
    calls_per_member: int = 0
    owed: Callable[[], float] = lambda: 0.0


class OperatorForecasts:
    """The operator's forecasts of one problem, made once for all rows that correct them.

    What was forecast before is found by its first states; the time that it took is owed by whoever finds it.
    """

    def __init__(self, operator: LatentOperator, codec: ProblemCodec) -> None:
        self.operator, self.codec = operator, codec
        self._made: list[tuple[Tensor, Tensor, Forecast, float]] = []
        self._owed = 0.0
        still = torch.zeros(1, *codec.shape.grid, codec.shape.channels)
        self.calls_per_step = len(Frame.group(codec.shape, still, operator.average.get(codec.problem, ())))

    def __call__(self, first: Tensor, scalars: Tensor, frames: int) -> Forecast:
        """Of first states [n, K, d] with scalars [n, S]."""
        for states, given, made, seconds in self._made:
            same = made.mean.shape[1] == frames and states.shape == first.shape
            if same and torch.equal(states, first) and torch.equal(given, scalars):
                self._owed += seconds
                return made
        started = time.perf_counter()
        made = forecast(self.operator, self.codec, first, scalars, frames)
        if first.is_cuda:
            torch.cuda.synchronize()
        self._made.append((first, scalars, made, time.perf_counter() - started))
        return made

    def owed(self) -> float:
        """Seconds owed since this was asked last."""
        seconds, self._owed = self._owed, 0.0
        return seconds


def operator_forecaster(forecasts: OperatorForecasts) -> Forecaster:
    """The operator alone, averaged over its symmetries as in every other row."""

    def rollout(first: Tensor, scalars: Tensor, steps: int, _: torch.Generator) -> Tensor:
        return forecasts(first, scalars, steps).mean[:, None]

    return Forecaster("operator", rollout, 1, forecasts.calls_per_step, owed=forecasts.owed)


def single_forecaster(operator: LatentOperator, problem: str) -> Forecaster:
    """The operator alone, one element of its symmetries' group."""

    def rollout(first: Tensor, scalars: Tensor, steps: int, _: torch.Generator) -> Tensor:
        return advance(operator, first, scalars, problem, steps)[:, None]

    return Forecaster("operator", rollout, 1, 1)


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
    forecasts: OperatorForecasts, network: ResidualNetwork, past: PastErrors, *, members: int
) -> list[Forecaster]:
    """The operator with past errors put on, as they were or scaled: ensembles that learn no network."""
    operator, problem = forecasts.operator, forecasts.codec.problem
    layout = network.network.shapes[problem].layout

    def with_errors(name: str, pool: Tensor, *, scaled: bool) -> Forecaster:
        def dressed(first: Tensor, scalars: Tensor, steps: int, generator: torch.Generator) -> Tensor:
            leads = forecasts(first, scalars, network.leads[problem])
            errors = resampled(pool, len(first), members, layout, generator)
            if scaled:
                errors = operator.conserving(network.deviation(leads, problem)[:, None] * errors, problem)
            return (leads.mean[:, None] + errors)[:, :, : _within(steps, network, problem)]

        return Forecaster(name, dressed, members, forecasts.calls_per_step, owed=forecasts.owed)

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
    calls = 2 * steps - 1
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

    return Forecaster(name, corrected, members, forecasts.calls_per_step, calls, forecasts.owed)


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
