"""Settings of the operator `linear`."""

from collections.abc import Collection
from typing import Literal

from pydantic import Field

from ups.config.networks import Body, OperatorSettings


class LinearOperator(OperatorSettings):
    """The linear path alone: nothing is trained unless the path is."""

    kind: Literal["linear"]
    linear_path: Literal["frozen", "trained"] = Field(  # pyright: ignore[reportIncompatibleVariableOverride]
        default="frozen", description="the best linear map of a step, as it is or trained on"
    )

    def hidden_weights(self, bodies: Collection[Body], dim: int) -> int:
        return 0
