"""Batches of (state, next state, operator's prediction), from which a residual is learnt."""

import numpy as np
import torch
from torch import Tensor

from ups.data.batch import Batch
from ups.models.operator import LatentOperator
from ups.runtime.randomness import numpy_generator


class ResidualSource:
    """Examples of the operator's error on trajectories that it did not fit.

    A part of the states is the truth; the rest comes out of the operator's own rollouts of 1 to
    `rollout_steps` steps from the truth. At inference every state is a rollout's, and a model that saw only
    true states underestimates the error there.

    All predictions are made once, at the start: the operator is frozen.
    """

    def __init__(
        self,
        operator: LatentOperator,
        latents: Tensor,
        scalars: Tensor,
        *,
        rollout_steps: int,
        rollout_fraction: float,
        seed: int,
        batch_size: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        """latents: [n, t, K, d] float32, standardised, on the device that trains; scalars: [S]."""
        self.scalars = scalars
        self.rollout_fraction = rollout_fraction
        self.seed, self.batch_size, self.rank, self.world = seed, batch_size, rank, world
        # Level l holds the states after l steps of the operator: [n * (t - 1 - l), K, d] each.
        self.levels: list[tuple[Tensor, Tensor, Tensor]] = []
        state = latents[:, :-1]
        for level in range(rollout_steps + 1):
            prediction = _advance(operator, state, scalars)
            target = latents[:, level + 1 :]
            self.levels.append((state.flatten(0, 1), target.flatten(0, 1), prediction.flatten(0, 1)))
            state = prediction[:, :-1]

    def residual_deviation(self) -> Tensor:
        """Deviation of the residual per channel, [d], with the levels weighted as they are drawn."""
        variances = torch.stack(
            [(target - prediction).square().mean(dim=(0, 1)) for _, target, prediction in self.levels]
        )
        weights = torch.tensor(self.level_weights(), dtype=variances.dtype, device=variances.device)
        deviation = (weights @ variances).sqrt()
        # A channel that is predicted exactly (one that never moves) is left as it is, not divided by zero.
        return torch.where(deviation > 0, deviation, 1.0)

    def level_weights(self) -> list[float]:
        """Probability of each level: the truth, then rollouts of equal share."""
        rolled = len(self.levels) - 1
        if rolled == 0:
            return [1.0]
        return [1 - self.rollout_fraction, *([self.rollout_fraction / rolled] * rolled)]

    def batch(self, step: int) -> Batch:
        """The batch of a step: a function of the seed and the step; rank r takes slots r modulo ranks."""
        generator = numpy_generator(self.seed, "residuals", step)
        level = generator.choice(len(self.levels), p=self.level_weights(), size=self.batch_size)
        place = generator.random(self.batch_size)
        states, predictions = [], []
        for slot in range(self.rank, self.batch_size, self.world):
            state, target, prediction = self.levels[level[slot]]
            index = int(place[slot] * len(state))
            states.append(torch.stack([state[index], target[index]]))
            predictions.append(prediction[index])
        return Batch(
            scalars=self.scalars.expand(len(states), -1),
            latents=torch.stack(states),
            predictions=torch.stack(predictions),
        )

    def everything(self, limit: int) -> Batch:
        """A fixed batch over all levels for validation, at most `limit` examples of each."""
        chosen = [
            [values[torch.from_numpy(_spread(len(values), limit)).to(values.device)] for values in level]
            for level in self.levels
        ]
        state, target, prediction = (torch.cat(parts) for parts in zip(*chosen, strict=True))
        return Batch(
            scalars=self.scalars.expand(len(state), -1),
            latents=torch.stack([state, target], dim=1),
            predictions=prediction,
        )


def _spread(length: int, limit: int) -> np.ndarray:
    return np.unique(np.linspace(0, length - 1, min(length, limit)).astype(np.int64))


@torch.no_grad()
def _advance(operator: LatentOperator, states: Tensor, scalars: Tensor) -> Tensor:
    flat = states.flatten(0, 1)
    advanced = [operator(part, scalars.expand(len(part), -1)) for part in flat.split(4096)]
    return torch.cat(advanced).view_as(states)
