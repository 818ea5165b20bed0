"""What the training loop asks of a stage: a loss on a batch."""

from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from ups.data.batch import Batch


@dataclass(frozen=True)
class Loss:
    """The scalar to minimise, and named parts of it for the record (detached by the loop)."""

    total: Tensor
    terms: dict[str, Tensor] = field(default_factory=dict)


class Objective(Protocol):
    """`(model, batch, generator) -> Loss`. All randomness comes from the generator."""

    def __call__(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Loss: ...
