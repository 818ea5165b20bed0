"""Settings of the operator `linear`."""

from collections.abc import Collection
from typing import Literal

from ups.config.networks import Body, OperatorSettings


class LinearOperator(OperatorSettings):
    """The linear path alone: nothing is trained unless the path is."""

    kind: Literal["linear"]
    linear_path: Literal["frozen", "trained"] = "frozen"  # pyright: ignore[reportIncompatibleVariableOverride]

    def hidden_weights(self, bodies: Collection[Body], dim: int) -> int:
        return 0
