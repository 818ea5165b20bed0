"""Settings of the optimiser `muon`."""

from typing import Literal

from pydantic import Field

from ups.config.optimizer import OptimizerSettings
from ups.section import Decay, Positive


class Muon(OptimizerSettings):
    """Muon for hidden matrices, AdamW for the rest."""

    kind: Literal["muon"]
    matrix_learning_rate: Positive = Field(default=0.02, description="peak rate of hidden matrices")
    momentum: Decay = Field(
        default=0.95, description="decay per step of the average of gradients, Nesterov's"
    )
