"""Settings of the operator `fno`."""

from collections.abc import Collection
from typing import Literal

from pydantic import Field

from ups.config.networks import Body, OperatorSettings, axes_of
from ups.section import Count, Integer


class FourierOperator(OperatorSettings):
    """Fourier neural operator."""

    kind: Literal["fno"]
    width: Count = Field(default=64, description="channels of a token inside the network")
    depth: Count = Field(default=4, description="layers")
    modes: Count = Field(
        default=32,
        multiple_of=2,
        description="wave numbers per axis that are mixed, the negative ones counted",
    )
    padding: Integer = Field(
        default=8, ge=0, le=1024, description="tokens of zeros beyond the end of an axis with walls"
    )

    def hidden_weights(self, bodies: Collection[Body], dim: int) -> int:
        axes = axes_of(bodies)
        kept = sum(self.modes ** (n - 1) * (self.modes // 2 + 1) for n in axes)
        hidden = 2 * (len(axes) + kept) * self.depth * self.width**2
        return hidden + 4 * self.width**2 + 2 * dim * self.width  # maps in and out have a hidden layer
