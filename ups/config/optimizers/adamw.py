"""Settings of the optimiser `adamw`."""

from typing import Literal

from ups.section import Section


class AdamW(Section):
    """AdamW for all parameters."""

    kind: Literal["adamw"] = "adamw"
