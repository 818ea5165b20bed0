"""What the training loop asks of a stage: a loss on a batch."""

from abc import ABC, abstractmethod
from collections.abc import Hashable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ups.data.batch import Batch


@dataclass(frozen=True)
class Loss:
    """The scalar to minimise, and named parts of it for the record (detached by the loop)."""

    total: Tensor
    terms: dict[str, Tensor] = field(default_factory=dict)


class Objective(ABC):
    """`(model, batch, generator) -> Loss`. All randomness comes from the generator, and no value is read by the host: what
    a step computes follows from its batch's problem, stride and `variant` alone, so that it can be captured."""

    @abstractmethod
    def __call__(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Loss: ...

    def prepare(self, step: int) -> None:
        """Write what follows from the number of the training step into tensors that the step reads."""
        del step

    def variant(self, batch: Batch) -> Hashable:
        """What the host decides by the number of the step."""
        del batch
        return None
