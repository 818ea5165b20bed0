"""Batches of whole trajectories with the operator's forecasts of them, for learning its residual."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ups.config.data import Sampling
from ups.data.batch import Batch
from ups.data.mixture import Mixture
from ups.data.window_reader import index_on
from ups.models.codec import ProblemCodec
from ups.models.evolution import forecast
from ups.models.forecast import Forecast
from ups.models.operators import LatentOperator
from ups.runtime.randomness import numpy_generator

_TRAJECTORIES_AT_ONCE = 128


@dataclass(frozen=True, eq=False)
class Residuals:
    """Trajectories of one problem and the operator's forecasts of them from their first states.

    All forecasts are made once, at the start: the operator is frozen.

    Attributes:
        truth: standardised latents of all leads, [n, T, K, d] float32, on the device that trains.
        forecasts: of all trajectories, likewise.
        scalars: conditioning in the frame of each trajectory, [n, S].
    """

    problem: str
    truth: Tensor
    forecasts: Forecast
    scalars: Tensor

    @classmethod
    def of(
        cls, operator: LatentOperator, codec: ProblemCodec, latents: Tensor, scalars: Tensor
    ) -> "Residuals":
        """Forecasts of latents [n, 1 + T, K, d] from the first of each trajectory."""
        leads = latents.shape[1] - 1
        with torch.no_grad():
            parts = [
                forecast(operator, codec, first, conditions, leads)
                for first, conditions in zip(
                    latents[:, 0].split(_TRAJECTORIES_AT_ONCE),
                    scalars.split(_TRAJECTORIES_AT_ONCE),
                    strict=True,
                )
            ]
        means, variances = (torch.cat([getattr(part, n) for part in parts]) for n in ("mean", "variance"))
        return cls(codec.problem, latents[:, 1:], Forecast(means, variances), scalars)

    def __len__(self) -> int:
        return len(self.truth)

    def take(self, index: NDArray[np.int64]) -> Batch:
        """The trajectories of some indices."""
        chosen = index_on(index, self.truth.device)
        return Batch(
            problem=self.problem,
            scalars=self.scalars[chosen],
            latents=self.truth[chosen],
            forecasts=self.forecasts.mean[chosen],
            variances=self.forecasts.variance[chosen],
        )


@dataclass
class ResidualSource:
    """Batches of residuals of one or several problems, by step."""

    problems: dict[str, Residuals]
    mixture: Mixture
    seed: int
    batch_size: int
    rank: int
    world: int

    @classmethod
    def of(
        cls,
        problems: dict[str, Residuals],
        *,
        sampling: Sampling,
        seed: int,
        purpose: str,
        batch_size: int,
        rank: int = 0,
        world: int = 1,
    ) -> "ResidualSource":
        """purpose: name of the stage."""
        sizes = [len(residuals) for residuals in problems.values()]
        mixture = Mixture(list(problems), sizes, sampling=sampling, seed=seed, purpose=purpose)
        return cls(problems, mixture, seed, batch_size, rank, world)

    def batch(self, step: int) -> Batch:
        """The batch of a step: a function of seed, step and the mixture's weights; rank r takes every world-th."""
        name, _ = self.mixture.at(step)
        residuals = self.problems[name]
        place = numpy_generator(self.seed, "residuals", name, step).random(self.batch_size)
        return residuals.take((place * len(residuals)).astype(np.int64)[self.rank :: self.world])

    def reweigh(self, step: int, errors: Mapping[str, float]) -> None:
        self.mixture.reweigh(step, errors)

    def state(self) -> dict[str, Any]:
        return self.mixture.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        self.mixture.restore(state)
