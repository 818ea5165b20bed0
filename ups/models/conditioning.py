"""Problem, boundary and scalars (time step, PDE parameters, noise level) to one conditioning vector."""

from collections.abc import Mapping
from typing import get_args

import torch
from torch import Tensor, nn

from ups.models.embedding import module_key
from ups.models.shape import ProblemShape
from ups.problems import Boundary

_BOUNDARIES: tuple[Boundary, ...] = get_args(Boundary)


class ScalarEmbedding(nn.Module):
    """Fourier features of scalars [B, S], then a two-layer perceptron to [B, conditioning].

    Scalars arrive as logarithms of positive quantities (time step, viscosity, noise level), which vary
    over decades. `bands` octaves of sines resolve differences from about 2 decades down to
    2 / 2^bands decades.
    """

    frequencies: Tensor

    def __init__(self, scalars: int, conditioning: int, bands: int = 6) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.pi * 2.0 ** torch.arange(-1, bands - 1), persistent=False)
        self.network = nn.Sequential(
            nn.Linear(scalars * 2 * bands, conditioning), nn.SiLU(), nn.Linear(conditioning, conditioning)
        )

    def forward(self, scalars: Tensor) -> Tensor:
        angles = scalars.unsqueeze(-1) * self.frequencies
        return self.network(torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(-2))


class ProblemConditioning(nn.Module):
    """What a network is told beside the state: which problem, which boundary, which scalars.

    Every problem has scalars of its own meaning and number, hence an embedding of its own, whose bias tells
    the problem; what problems with the same boundary have in common is a shared vector (zero at first).
    """

    def __init__(self, shapes: Mapping[str, ProblemShape], conditioning: int, extra_scalars: int) -> None:
        """extra_scalars: of every problem (the noise level)."""
        super().__init__()
        self.scalars = nn.ModuleDict(
            {
                module_key(name): ScalarEmbedding(shape.scalars + extra_scalars, conditioning)
                for name, shape in shapes.items()
            }
        )
        self.boundary = nn.Parameter(torch.zeros(len(_BOUNDARIES), conditioning))
        self.boundary_index = {name: _BOUNDARIES.index(shape.boundary) for name, shape in shapes.items()}

    def forward(self, scalars: Tensor, problem: str) -> Tensor:
        """Scalars [B, S + extra] to [B, conditioning]."""
        return self.scalars[module_key(problem)](scalars) + self.boundary[self.boundary_index[problem]]
