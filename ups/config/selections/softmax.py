"""Settings of the selection `softmax`."""

from typing import Annotated, Literal

from pydantic import Field

from ups.section import Positive, Section


class Softmax(Section):
    """The mean of all candidates, weighted by exp(-(score / best score - 1) / temperature)."""

    kind: Literal["softmax"]
    temperatures: Annotated[tuple[Positive, ...], Field(min_length=1, max_length=16)] = Field(
        default=(0.03, 0.1, 0.3, 1.0), description="of which validation trajectories take the best"
    )
