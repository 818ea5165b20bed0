"""The one typed batch that every stage consumes."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Windows of consecutive frames, drawn across trajectories.

    Attributes:
        fields: [B, T, *grid, C] normalised fields (zero mean, unit deviation of the train split), where the
            loss is in fields.
        scalars: [B, S] natural logarithms of time step and PDE parameters.
        latents: [B, T, K, d] standardised latents, where a cache is read.
        predictions: [B, K, d] the operator's prediction of latents[:, 1] from latents[:, 0], where its
            residual is learnt.
    """

    scalars: Tensor
    fields: Tensor | None = None
    latents: Tensor | None = None
    predictions: Tensor | None = None

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device; nothing is copied where it is there already."""

        def move(value: Tensor | None) -> Tensor | None:
            return None if value is None else value.to(device, non_blocking=True)

        return Batch(
            self.scalars.to(device, non_blocking=True),
            move(self.fields),
            move(self.latents),
            move(self.predictions),
        )
