"""Batches of (state, next state, operator's prediction), from which a residual is learnt."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ups.config.data import Sampling
from ups.data.batch import Batch
from ups.data.mixture import Mixture
from ups.models.operator import LatentOperator
from ups.runtime.randomness import numpy_generator


class Residuals:
    """The operator's errors on some trajectories of one problem that it did not fit.

    Level l holds the states after l steps of the operator, from every true state. At inference every state
    is a rollout's, and a model that saw only true states underestimates the error there. A map has level 0
    only: it is applied once.

    All predictions are made once, at the start: the operator is frozen.
    """

    def __init__(
        self,
        problem: str,
        operator: LatentOperator,
        latents: Tensor,
        scalars: Tensor,
        *,
        rollout_steps: int,
        rollout_fraction: float,
    ) -> None:
        """latents: [n, t, K, d] float32, standardised, on the device that trains; scalars: [S]."""
        self.problem, self.scalars = problem, scalars
        levels = min(rollout_steps, latents.shape[1] - 2) + 1
        parts: list[tuple[Tensor, Tensor, Tensor]] = []
        state = latents[:, :-1]
        for level in range(levels):
            prediction = _advance(operator, state, scalars, problem)
            target = latents[:, level + 1 :]
            parts.append((state.flatten(0, 1), target.flatten(0, 1), prediction.flatten(0, 1)))
            state = prediction[:, :-1]
        self.sizes = np.array([len(state) for state, _, _ in parts])
        self.offsets = np.concatenate([[0], np.cumsum(self.sizes)[:-1]])
        self.level_weights = _level_weights(levels, rollout_fraction)
        # One tensor each over all levels, so that a batch is one gather and not a loop over its examples.
        self.states, self.targets, self.predictions = (
            torch.cat(values) for values in zip(*parts, strict=True)
        )

    def deviation(self) -> Tensor:
        """Deviation of the residual per channel, [d], with the levels weighted as they are drawn."""
        squares = (self.targets - self.predictions).square().mean(dim=1)
        variances = torch.stack([part.mean(dim=0) for part in squares.split(self.sizes.tolist())])
        weights = torch.tensor(self.level_weights, dtype=variances.dtype, device=variances.device)
        deviation = (weights @ variances).sqrt()
        # A channel that is predicted exactly (one that never moves) is left as it is, not divided by zero.
        return torch.where(deviation > 0, deviation, 1.0)

    def drawn(self, generator: np.random.Generator, batch_size: int, rank: int, world: int) -> Batch:
        """Slots r modulo the number of ranks of a batch that is a function of the generator."""
        level = generator.choice(len(self.sizes), p=self.level_weights, size=batch_size)
        place = generator.random(batch_size)
        index = self.offsets[level] + (place * self.sizes[level]).astype(np.int64)
        return self.take(index[rank::world])

    def spread(self, limit: int) -> np.ndarray:
        """Indices of at most `limit` examples of each level, evenly spread."""
        chosen = [
            offset + np.unique(np.linspace(0, size - 1, min(size, limit)).astype(np.int64))
            for offset, size in zip(self.offsets.tolist(), self.sizes.tolist(), strict=True)
        ]
        return np.concatenate(chosen)

    def take(self, index: np.ndarray) -> Batch:
        """The examples of some indices."""
        chosen = torch.from_numpy(index).to(self.states.device)
        return Batch(
            problem=self.problem,
            scalars=self.scalars.expand(len(index), -1),
            latents=torch.stack([self.states[chosen], self.targets[chosen]], dim=1),
            predictions=self.predictions[chosen],
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
        sizes = [int(residuals.sizes[0]) for residuals in problems.values()]
        mixture = Mixture(list(problems), sizes, sampling=sampling, seed=seed, purpose=purpose)
        return cls(problems, mixture, seed, batch_size, rank, world)

    def batch(self, step: int) -> Batch:
        """The batch of a step: a function of seed, step and the mixture's weights."""
        name, _ = self.mixture.at(step)
        generator = numpy_generator(self.seed, "residuals", name, step)
        return self.problems[name].drawn(generator, self.batch_size, self.rank, self.world)

    def reweigh(self, step: int, errors: Mapping[str, float]) -> None:
        self.mixture.reweigh(step, errors)

    def state(self) -> dict[str, Any]:
        return self.mixture.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        self.mixture.restore(state)


def _level_weights(levels: int, rollout_fraction: float) -> list[float]:
    """Probability of each level: the truth, then rollouts of equal share."""
    rolled = levels - 1
    if rolled == 0:
        return [1.0]
    return [1 - rollout_fraction, *([rollout_fraction / rolled] * rolled)]


@torch.no_grad()
def _advance(operator: LatentOperator, states: Tensor, scalars: Tensor, problem: str) -> Tensor:
    flat = states.flatten(0, 1)
    advanced = [operator(part, scalars.expand(len(part), -1), problem) for part in flat.split(4096)]
    return torch.cat(advanced).view_as(states)
