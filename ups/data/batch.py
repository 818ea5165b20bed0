"""The one typed batch that every stage consumes."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Windows of consecutive frames of one problem, drawn across its trajectories.

    Attributes:
        problem: name of the problem in the configuration; a batch holds one.
        fields: [B, T, *grid, C] normalised fields (zero mean, unit deviation of the train split), where the
            loss is in fields.
        known: [B, T, C] bool, which fields are known in which frame; None: all. Unknown values are 0.
        scalars: [B, S] natural logarithms of time step and PDE parameters.
        latents: [B, T, K, d] standardised latents, where a cache is read.
        predictions: [B, K, d] the operator's prediction of latents[:, 1] from latents[:, 0], where its
            residual is learnt.
    """

    problem: str
    scalars: Tensor
    fields: Tensor | None = None
    known: Tensor | None = None
    latents: Tensor | None = None
    predictions: Tensor | None = None

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device; nothing is copied where it is there already."""

        def move(value: Tensor | None) -> Tensor | None:
            return None if value is None else value.to(device, non_blocking=True)

        return replace(
            self,
            scalars=self.scalars.to(device, non_blocking=True),
            fields=move(self.fields),
            known=move(self.known),
            latents=move(self.latents),
            predictions=move(self.predictions),
        )
