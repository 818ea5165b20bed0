"""What an operator says of whole trajectories."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Forecast:
    """What an operator says of the leads of some trajectories, in standardised latents.

    Attributes:
        mean: [n, T, K, d].
        variance: [n, T, K, 1] of the forecasts that it is the mean of, mean over channels; 0 of a single one.
    """

    mean: Tensor
    variance: Tensor

    @classmethod
    def single(cls, latents: Tensor) -> "Forecast":
        """A forecast that is no mean, [n, T, K, d]."""
        return cls(latents, torch.zeros_like(latents[..., :1]))

    def __len__(self) -> int:
        return len(self.mean)

    def __getitem__(self, rows: slice | Tensor) -> "Forecast":
        return Forecast(self.mean[rows], self.variance[rows])
