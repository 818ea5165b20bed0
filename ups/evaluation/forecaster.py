"""What evaluation rolls out: the deterministic rows of the result table, each for one problem.

Of a map (2D Darcy), which goes through the chain as two frames, one step is the whole map.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ups.models.codec import ProblemCodec
from ups.models.evolution import advance, forecast, rollout
from ups.models.forecast import Forecast
from ups.models.operators import LatentOperator
from ups.models.reference_frame import ReferenceFrame

Rollout = Callable[[Tensor, Tensor, int, torch.Generator], Tensor]
"""(first latents [n, K, d], scalars [n, S], steps, generator) to forecasts [n, members, steps, K, d]."""


@dataclass(frozen=True)
class Forecaster:
    """One model of the table.

    Attributes:
        members: size of its ensemble. 1: deterministic.
        calls_per_step: network calls per time step, for all members together.
        calls_per_member: further calls per member, for all steps together.
        shared_seconds: what the operator's forecasts took that were made for another row and used for this one, since it
            was asked last.
    """

    name: str
    rollout: Rollout
    members: int
    calls_per_step: int
    calls_per_member: int = 0
    shared_seconds: Callable[[], float] = lambda: 0.0


class OperatorForecasts:
    """The operator's forecasts of one problem, made once for all rows that correct them.

    What was forecast before is found by its first states, and the time that it took counts for every row that uses it.
    """

    def __init__(self, operator: LatentOperator, codec: ProblemCodec) -> None:
        self.operator, self.codec = operator, codec
        self._made: list[tuple[Tensor, Tensor, Forecast, float]] = []
        self._shared_seconds = 0.0
        still = torch.zeros(1, *codec.shape.grid, codec.shape.channels)
        self.calls_per_step = len(
            ReferenceFrame.group(codec.shape, still, operator.average.get(codec.problem, ()))
        )

    def __call__(self, first: Tensor, scalars: Tensor, frames: int) -> Forecast:
        """Of first states [n, K, d] with scalars [n, S]."""
        for states, given, made, seconds in self._made:
            same = made.mean.shape[1] == frames and states.shape == first.shape
            if same and torch.equal(states, first) and torch.equal(given, scalars):
                self._shared_seconds += seconds
                return made
        started = time.perf_counter()
        made = forecast(self.operator, self.codec, first, scalars, frames)
        if first.is_cuda:
            torch.cuda.synchronize()
        self._made.append((first, scalars, made, time.perf_counter() - started))
        return made

    def forget(self) -> None:
        """Keep none of them any longer."""
        self._made.clear()

    def shared_seconds(self) -> float:
        """Seconds that were taken over with forecasts since this was asked last."""
        seconds, self._shared_seconds = self._shared_seconds, 0.0
        return seconds


def operator_forecaster(forecasts: OperatorForecasts) -> Forecaster:
    """The operator alone, averaged over its symmetries as in every other row."""

    def averaged(first: Tensor, scalars: Tensor, steps: int, _: torch.Generator) -> Tensor:
        return forecasts(first, scalars, steps).mean[:, None]

    return Forecaster(
        "operator", averaged, 1, forecasts.calls_per_step, shared_seconds=forecasts.shared_seconds
    )


def single_forecaster(operator: LatentOperator, problem: str) -> Forecaster:
    """The operator alone, one element of its symmetries' group."""

    def single(first: Tensor, scalars: Tensor, steps: int, _: torch.Generator) -> Tensor:
        return advance(operator, first, scalars, problem, steps)[:, None]

    return Forecaster("operator", single, 1, 1)


def linear_forecasters(operator: LatentOperator, problem: str) -> list[Forecaster]:
    """The best linear map of a step, alone; none where the problem is too large for one."""
    if not operator.has_linear(problem):
        return []

    def linear(first: Tensor, _scalars: Tensor, steps: int, _: torch.Generator) -> Tensor:
        return rollout(lambda state: operator.linear_step(state, problem), first, steps)[:, None]

    return [Forecaster("linear", linear, 1, 0)]
