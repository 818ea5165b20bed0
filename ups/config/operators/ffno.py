"""Settings of the operator `ffno`."""

from collections.abc import Collection
from typing import Literal

from pydantic import Field

from ups.config.networks import Body, OperatorSettings
from ups.section import Count


class FactorizedFourierOperator(OperatorSettings):
    """Fourier operator along each axis by itself."""

    kind: Literal["ffno"]
    width: Count = Field(default=64, description="channels of a token inside the network")
    depth: Count = Field(default=4, description="layers")
    modes: Count = Field(
        default=16,
        multiple_of=2,
        description="per axis: wave numbers that are mixed, the negative ones counted; between walls half waves",
    )

    def hidden_weights(self, bodies: Collection[Body], dim: int) -> int:
        matrices = sum(2 + n * (self.modes + 2 * periodic) for n, periodic in bodies)
        hidden = self.depth * matrices * self.width**2
        return hidden + 4 * self.width**2 + 2 * dim * self.width  # maps in and out have a hidden layer
