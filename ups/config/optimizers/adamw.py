"""Settings of the optimiser `adamw`."""

from typing import Literal

from ups.config.optimizer import OptimizerSettings


class AdamW(OptimizerSettings):
    """AdamW for all parameters."""

    kind: Literal["adamw"] = "adamw"
