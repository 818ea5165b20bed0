"""The shape of a problem as the networks see it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ups.models.token_grid import TokenGrid
from ups.problems import Boundary


@dataclass(frozen=True)
class ProblemShape:
    """What a network must know of a problem.

    Attributes:
        grid, tokens: points and tokens per space axis.
        channels: fields of the state.
        scored: channels that are forecast; the others are given.
        boundary: of every axis.
        partly_known: there are frames in which not all fields are known.
        scalars: number of conditioning scalars.
    """

    grid: tuple[int, ...]
    tokens: tuple[int, ...]
    channels: int
    scored: tuple[int, ...]
    boundary: Boundary
    partly_known: bool
    scalars: int

    @property
    def layout(self) -> TokenGrid:
        return TokenGrid(self.grid, self.tokens, (self.boundary == "periodic",) * len(self.grid))

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "ProblemShape":
        """From a description in a model file."""
        arguments = dict(values)
        for name in ("grid", "tokens", "scored"):
            arguments[name] = tuple(arguments[name])
        return cls(**arguments)

    def to_json(self) -> dict[str, Any]:
        lists = {name: list(getattr(self, name)) for name in ("grid", "tokens", "scored")}
        return vars(self) | lists
