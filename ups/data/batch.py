"""The one typed batch that every stage consumes."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Windows of equally distant frames of one problem, drawn across its trajectories.

    Attributes:
        problem: name of the problem in the configuration; a batch holds one.
        fields: [B, T, *grid, C] physical fields, where they are read.
        known: [B, T, C] bool, which fields are known in which frame; None: all. Unknown values are 0.
        scalars: [B, S] natural logarithms of the equation's dimensionless numbers.
        step: of the training that drew it.
        stride: frames of the data from one frame of a window to the next.
        latents: [B, T, K, d] standardised latents, where a cache is read.
        forecasts, variances: [B, T, K, d] and [B, T, K, 1] the operator's forecast of these latents, where its
            residual is learnt.
    """

    problem: str
    scalars: Tensor
    step: int = 0
    stride: int = 1
    fields: Tensor | None = None
    known: Tensor | None = None
    latents: Tensor | None = None
    forecasts: Tensor | None = None
    variances: Tensor | None = None

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
            forecasts=move(self.forecasts),
            variances=move(self.variances),
        )
