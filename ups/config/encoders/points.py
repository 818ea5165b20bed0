"""Settings of the encoder `points`."""

import math
from typing import Literal

from pydantic import Field

from ups.config.networks import Correction
from ups.section import Count, Positive

_LONELY = 1e-9  # supernodes without a point in their ball that a frame may have on the average


class PointEncoder(Correction):
    """Values at irregular points: supernodes on the grid, messages from the points around them, and pooling to tokens."""

    kind: Literal["points"]
    points: Count = Field(
        description="that a frame is seen at: uniformly random places between the grid's points, others for every trajectory"
    )
    radius: Positive = Field(
        default=0.1, le=0.25, description="within which points tell a supernode, in domain lengths"
    )
    neighbours: Count = Field(
        default=16, le=64, description="points that tell a supernode, at most: the nearest"
    )
    smoothness: Literal[0, 1, 2] = Field(
        default=2,
        description="derivatives of the interpolation that the network corrects; 0: on a line, straight between neighbours",
    )

    def problem(self, name: str, grid: tuple[int, ...], *, walled: bool) -> str | None:
        """Why it cannot see a problem's frames, on a grid with walls or without; None if it can."""
        supernodes = math.prod(grid)
        if supernodes > self.points:
            return (
                f"model.encoder.points: {supernodes} supernodes, the grid's points of {name}, are more than the {self.points} "
                f"points that tell them: write {supernodes} or more, or keep a coarser grid"
            )
        if self.neighbours > self.points:
            return f"model.encoder.neighbours: {self.neighbours} are more than the {self.points} points of a frame: lower them"
        # The emptiest ball that a supernode has: in a corner of walls, a half or a quarter of it is within the domain.
        ball = (2 * self.radius if len(grid) == 1 else math.pi * self.radius**2) / (
            2 ** len(grid) if walled else 1
        )
        lonely = supernodes * (1 - ball) ** self.points
        if lonely > _LONELY:
            return (
                f"model.encoder.radius: of {self.points} random points, none is within {self.radius:g} of some supernode of "
                f"{name} in one frame of {1 / lonely:.0f}: raise radius or points"
            )
        return None

    def message_weights(self, patch_points: int, channels: int, axes: int) -> int:
        """Weights of messages and pooling, beside those of any correction."""
        width = self.width
        messages = (axes + 2) + (width + 2) + (width + 1) * channels + 2 + (width + 1)
        return width * (messages + (4 + 2 * patch_points) * width + patch_points + 5)
