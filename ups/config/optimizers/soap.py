"""Settings of the optimiser `soap`."""

from typing import Literal

from pydantic import Field

from ups.section import Count, Decay, Positive, Section


class Soap(Section):
    """SOAP for hidden matrices, AdamW for the rest."""

    kind: Literal["soap"]
    matrix_learning_rate: Positive = Field(default=0.003, description="peak rate of hidden matrices")
    basis_decay: Decay = Field(
        default=0.95, description="of the averages of G G^T and G^T G, in whose eigenvectors Adam works"
    )
    basis_every: Count = Field(
        default=10, description="steps from one renewal of the eigenvectors to the next"
    )
