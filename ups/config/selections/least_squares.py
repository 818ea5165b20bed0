"""Settings of the selection `least_squares`."""

from typing import Annotated, Literal

from pydantic import Field

from ups.section import Positive, Section


class LeastSquares(Section):
    """The combination of the candidates, lead by lead, that misses the equation least."""

    kind: Literal["least_squares"]
    ridges: Annotated[tuple[Positive, ...], Field(min_length=1, max_length=16)] = Field(
        default=(0.01, 0.1, 1.0, 10.0),
        description="penalties of squared weights, in mean squares of the candidates' differences, of which validation "
        "trajectories take the best",
    )
