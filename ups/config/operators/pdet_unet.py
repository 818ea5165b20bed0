"""Settings of the operator `pdet_unet`."""

from collections.abc import Collection
from typing import Literal

from pydantic import Field

from ups.config.networks import AttentionSettings, Body, OperatorSettings, Transformer, axes_of, block_weights
from ups.section import Count


class UNetOperator(Transformer, AttentionSettings, OperatorSettings):
    """Transformer blocks on tokens that are halved and doubled again."""

    kind: Literal["pdet_unet"]
    depth: Count = Field(default=1, description="blocks per level, on the way down and on the way up")
    levels: Count = Field(default=2, le=16, description="how often tokens are halved")

    def hidden_weights(self, bodies: Collection[Body], dim: int) -> int:
        blocks = block_weights(self, channel_separated=self.channel_separated)
        hidden = (2 * self.levels + 1) * (blocks + self.depth * 6 * self.width**2)
        return hidden + 2 * self.levels * sum(2**n for n in axes_of(bodies)) * self.width**2
