"""Settings of the optimiser `soap`."""

from typing import ClassVar, Literal

from pydantic import Field

from ups.config.optimizer import OptimizerSettings
from ups.section import Count, Decay, Positive


class Soap(OptimizerSettings):
    """SOAP for hidden matrices, AdamW for the rest."""

    no_graphs: ClassVar[str] = "cannot hold the eigenvectors of"
    no_shards: ClassVar[str] = "needs whole matrices at every step"
    kind: Literal["soap"]
    matrix_learning_rate: Positive = Field(default=0.003, description="peak rate of hidden matrices")
    basis_decay: Decay = Field(
        default=0.95, description="of the averages of G G^T and G^T G, in whose eigenvectors Adam works"
    )
    basis_every: Count = Field(
        default=10, description="steps from one renewal of the eigenvectors to the next"
    )
