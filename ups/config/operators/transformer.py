"""Settings of the operator `transformer`."""

from collections.abc import Collection
from typing import Literal, Self

from pydantic import Field, model_validator

from ups.config.networks import AttentionSettings, Body, OperatorSettings, Transformer, block_weights
from ups.section import Count


class TransformerOperator(Transformer, AttentionSettings, OperatorSettings):
    """Transformer blocks on all tokens."""

    kind: Literal["transformer"]
    depth: Count = Field(default=4, description="blocks")

    @model_validator(mode="after")
    def _windows_meet(self) -> Self:
        if self.window and self.depth == 1:
            raise ValueError(
                f"window {self.window} with depth 1 is never shifted, and its tokens learn of no others: raise depth, or "
                "write window: null"
            )
        return self

    def hidden_weights(self, bodies: Collection[Body], dim: int) -> int:
        return block_weights(self, channel_separated=self.channel_separated) + self.depth * 6 * self.width**2
