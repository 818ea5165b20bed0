"""Settings of the optimiser `adamw_8bit`."""

from typing import ClassVar, Literal

from ups.config.optimizer import OptimizerSettings


class AdamW8Bit(OptimizerSettings):
    """AdamW whose moments have eight bits: a quarter of their memory, of weights with 4096 numbers or more."""

    no_graphs: ClassVar[str] = "was not tried with"
    no_shards: ClassVar[str] = "scales blocks of them together"
    library: ClassVar[str] = "torchao"
    kind: Literal["adamw_8bit"]
