"""The shape of a problem as the networks see it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ups.models.token_grid import TokenGrid
from ups.problems import PROBLEMS, Boundary, Field, Problem, ProblemName, Symmetry, Variables


@dataclass(frozen=True)
class ProblemShape:
    """What a network must know of a problem.

    Attributes:
        equation: its declaration's name.
        variables: in which its state is given.
        grid, tokens: points and tokens per space axis.
        scored: channels that are forecast; the others are given.
        boundary: of every axis.
        exact: symmetries that are used exactly, by moving every trajectory to its own frame.
    """

    equation: ProblemName
    grid: tuple[int, ...]
    tokens: tuple[int, ...]
    scored: tuple[int, ...]
    boundary: Boundary
    variables: Variables = "primitive"
    exact: tuple[Symmetry, ...] = ()

    @property
    def problem(self) -> Problem:
        return PROBLEMS[self.equation]

    @property
    def fields(self) -> tuple[Field, ...]:
        """In the order of the channels."""
        return self.problem.fields_in(self.variables)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the fields."""
        return tuple(field.name for field in self.fields)

    @property
    def channels(self) -> int:
        """Fields of the state."""
        return len(self.names)

    @property
    def partly_known(self) -> bool:
        """There are frames in which not all fields are known."""
        return self.problem.is_map

    @property
    def scalars(self) -> int:
        """Conditioning scalars: logarithms of dimensionless numbers."""
        return len(self.problem.numbers)

    @property
    def length(self) -> float:
        """Of the domain, along its first axis."""
        lower, upper = self.problem.domain[0]
        return upper - lower

    @property
    def scales_itself(self) -> bool:
        """Whether the field's own amplitude is taken out at every step."""
        return "scaling" in self.exact and self.problem.symmetries.scaled_by is None

    @property
    def token_grid(self) -> TokenGrid:
        return TokenGrid(self.grid, self.tokens, (self.boundary == "periodic",) * len(self.grid))

    def scored_fields(self, fields: Tensor) -> Tensor:
        """Those that are forecast, of fields [..., C]."""
        if len(self.scored) == self.channels:
            return fields
        # An index would be copied from the host, which waits for that.
        return torch.stack([fields[..., channel] for channel in self.scored], dim=-1)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "ProblemShape":
        """From a description in a model file."""
        arguments = dict(values)
        for name in _TUPLES:
            arguments[name] = tuple(arguments[name])
        return cls(**arguments)

    def to_json(self) -> dict[str, Any]:
        return vars(self) | {name: list(getattr(self, name)) for name in _TUPLES}


_TUPLES = ("grid", "tokens", "scored", "exact")
