"""Equation, boundary and scalars (dimensionless numbers, noise level) to one conditioning vector."""

from collections.abc import Mapping
from typing import get_args

import torch
from torch import Tensor, nn

from ups.models.float32 import Float32Linear
from ups.models.shape import ProblemShape
from ups.problems import Boundary

_BOUNDARIES: tuple[Boundary, ...] = get_args(Boundary)


class ScalarEmbedding(nn.Module):
    """Scalars [B, S] and Fourier features of them, then a two-layer perceptron to [B, conditioning].

    Scalars arrive as logarithms of positive quantities (dimensionless numbers, noise level), which vary over
    decades. `bands` octaves of sines resolve differences from about 2 decades down to 2 / 2^bands decades; the
    scalar itself carries the slow dependence, which sines would have to add up.
    """

    frequencies: Tensor

    def __init__(self, scalars: int, conditioning: int, bands: int = 4) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.pi * 2.0 ** torch.arange(-1, bands - 1), persistent=False)
        self.network = nn.Sequential(
            Float32Linear(scalars * (1 + 2 * bands), conditioning),
            nn.SiLU(),
            Float32Linear(conditioning, conditioning),
        )

    def forward(self, scalars: Tensor) -> Tensor:
        angles = scalars.unsqueeze(-1) * self.frequencies
        features = torch.cat([scalars.unsqueeze(-1), angles.sin(), angles.cos()], dim=-1)
        return self.network(features.flatten(-2))


class ProblemConditioning(nn.Module):
    """What a network is given beside the state: which equation, which boundary, which scalars.

    Problems of one equation (several viscosities, say) share an embedding: their dimensionless numbers say all
    that differs. Every equation has its own, whose bias tells it apart; what problems with the same boundary
    have in common is a shared vector (zero at first).
    """

    def __init__(self, shapes: Mapping[str, ProblemShape], conditioning: int, extra_scalars: int) -> None:
        """extra_scalars: of every problem (the noise level)."""
        super().__init__()
        self.scalars = nn.ModuleDict(
            {
                shape.equation: ScalarEmbedding(shape.scalars + extra_scalars, conditioning)
                for shape in shapes.values()
            }
        )
        self.boundary = nn.Parameter(torch.zeros(len(_BOUNDARIES), conditioning))
        self.shapes = dict(shapes)

    def forward(self, scalars: Tensor, problem: str) -> Tensor:
        """Scalars [B, S + extra] to [B, conditioning]."""
        shape = self.shapes[problem]
        return self.scalars[shape.equation](scalars) + self.boundary[_BOUNDARIES.index(shape.boundary)]
