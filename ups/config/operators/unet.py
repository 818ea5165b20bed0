"""Settings of the operator `unet`."""

from collections.abc import Collection
from typing import Literal

from pydantic import Field

from ups.config.networks import Body, OperatorSettings, axes_of
from ups.section import Count


class ConvolutionalUNetOperator(OperatorSettings):
    """Residual convolutions on tokens that are halved and doubled again."""

    kind: Literal["unet"]
    width: Count = Field(default=32, description="on the finest level; twice as wide on every coarser one")
    depth: Count = Field(
        default=1, description="residual blocks per level, on the way down and on the way up"
    )
    levels: Count = Field(default=3, le=16, description="how often tokens are halved")

    def hidden_weights(self, bodies: Collection[Body], dim: int) -> int:
        axes, hidden = axes_of(bodies), 0
        for level in range(self.levels + 1):
            wide = (self.width * 2**level) ** 2
            times = 1 if level == self.levels else 2
            hidden += sum(2 * 3**n * self.depth * times * wide for n in axes)
            if level < self.levels:
                hidden += sum((4 * 2**n + 2) * wide for n in axes)
        return hidden
