"""Settings of the optimiser `adamw_8bit`."""

from typing import Literal

from ups.section import Section


class AdamW8Bit(Section):
    """AdamW whose moments have eight bits: a quarter of their memory, of weights with 4096 numbers or more."""

    kind: Literal["adamw_8bit"]
