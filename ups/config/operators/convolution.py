"""Settings of the operator `convolution`."""

from collections.abc import Collection
from typing import Literal

from pydantic import Field

from ups.config.networks import Body, OperatorSettings, axes_of
from ups.section import Count


class ConvolutionOperator(OperatorSettings):
    """Dilated residual convolution."""

    kind: Literal["convolution"] = "convolution"
    width: Count = Field(default=96, description="channels of a token inside the network")
    dilations: tuple[Count, ...] = Field(
        default=(1, 2, 4, 2, 1, 1, 2, 4, 2, 1),
        min_length=1,
        description="of each residual convolution, in tokens",
    )
    modulated: bool = Field(
        default=False,
        description="every convolution is told the dimensionless numbers, and not the first alone: what lets one model "
        "tell several viscosities apart",
    )

    def hidden_weights(self, bodies: Collection[Body], dim: int) -> int:
        per_axes = sum(3**n + 2 * self.modulated for n in axes_of(bodies))
        return len(self.dilations) * per_axes * self.width**2
