"""Settings of the operator `hybrid`."""

from collections.abc import Collection
from typing import Literal, Self

from pydantic import Field, model_validator

from ups.config.networks import (
    AttentionSettings,
    Body,
    OperatorSettings,
    Transformer,
    axes_of,
    block_weights,
    require_heads,
)
from ups.section import Count


class HybridOperator(AttentionSettings, OperatorSettings):
    """A convolution and a transformer block in turn."""

    kind: Literal["hybrid"]
    width: Count = Field(default=64, description="channels of a token inside the network")
    dilations: tuple[Count, ...] = Field(
        default=(1, 2, 4, 1), min_length=1, description="of the convolution of each block, in tokens"
    )
    heads: Count = Field(default=4, description="of the attention; width / heads must be an even number")
    ratio: Count = Field(default=2, description="hidden width of the MLP over `width`")

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        require_heads(self.width, self.heads)
        return self

    def hidden_weights(self, bodies: Collection[Body], dim: int) -> int:
        blocks = len(self.dilations)
        hidden = blocks * (sum(3**n for n in axes_of(bodies)) + 6) * self.width**2
        attention = Transformer(width=self.width, depth=blocks, heads=self.heads, ratio=self.ratio)
        return hidden + block_weights(attention, channel_separated=self.channel_separated)
