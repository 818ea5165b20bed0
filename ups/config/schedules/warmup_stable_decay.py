"""Settings of the schedule `warmup_stable_decay`."""

from typing import Annotated, Literal

from pydantic import Field

from ups.section import Section


class WarmupStableDecay(Section):
    """At the peak until the last part of the training."""

    kind: Literal["warmup_stable_decay"]
    decay: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.2,
        description="part of the steps after the warm-up in which the rate falls",
    )
