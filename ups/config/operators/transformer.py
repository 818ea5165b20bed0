"""Settings of the operator `transformer`."""

from collections.abc import Collection
from typing import Literal

from pydantic import Field

from ups.config.networks import Body, OperatorSettings, Transformer, block_weights
from ups.section import Count


class TransformerOperator(Transformer, OperatorSettings):
    """Transformer blocks on all tokens."""

    kind: Literal["transformer"]
    depth: Count = Field(default=4, description="blocks")

    def hidden_weights(self, bodies: Collection[Body], dim: int) -> int:
        return block_weights(self) + self.depth * 6 * self.width**2
