"""Bytes of weights and checkpoints, from a configuration alone, so that a full disk refuses before work begins."""

import math
from dataclasses import dataclass

_CHECKPOINTS = 3  # two are kept, and the next is written before the oldest goes
_COPIES = (
    5  # in a checkpoint: weights, their average, Adam's two moments, and the best average where it is kept
)
HEADER_BYTES = 4000
"""Names, shapes and the description in a safetensors file."""
_HEADER_OF_PROBLEM = 1700
_LOG_BYTES = 100_000


@dataclass(frozen=True)
class KeptShape:
    """What is kept of each trajectory of a problem: frames, and grid points per space axis."""

    frames: int
    grid: tuple[int, ...]

    @property
    def points(self) -> int:
        return math.prod(self.grid)


def weight_bytes(parameters: int, problems: int) -> int:
    """A file of weights."""
    return 4 * parameters + HEADER_BYTES + problems * _HEADER_OF_PROBLEM


def training_bytes(parameters: int, problems: int) -> int:
    """A training's weights, checkpoints and log."""
    return weight_bytes(parameters, problems) * (1 + _CHECKPOINTS * _COPIES) + _LOG_BYTES
