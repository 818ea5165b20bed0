"""The ideal gas of the compressible problem: its conserved variables, in tensors or arrays alike.

    (rho, v, p)  <->  (rho, rho v, e),     e = p/(gamma - 1) + rho v^2/2

Files hold primitive variables; what the equation conserves, and what conservation is measured on, are the others.

Source: Euler's equations of an ideal gas in PDEBench's variables (Takamoto et al. 2022).
"""

from typing import Any, TypeVar, cast

GAMMA = 5.0 / 3.0
"""Ratio of specific heats of PDEBench's gas."""

Fields = TypeVar("Fields")
"""A tensor or an array [..., 3] of floating-point numbers."""


def to_conserved(primitive: Fields, gamma: float = GAMMA) -> Fields:
    """(rho, v, p) [..., 3] to (rho, rho v, e) [..., 3], in the same dtype."""
    given = cast(Any, primitive)
    conserved = given * 1.0  # a copy, of a tensor or of an array
    conserved[..., 1] = given[..., 0] * given[..., 1]
    conserved[..., 2] = given[..., 2] / (gamma - 1.0) + 0.5 * conserved[..., 1] * given[..., 1]
    return conserved


def to_primitive(conserved: Fields, gamma: float = GAMMA) -> Fields:
    """(rho, rho v, e) [..., 3] to (rho, v, p) [..., 3], in the same dtype; no floor is applied."""
    given = cast(Any, conserved)
    primitive = given * 1.0
    primitive[..., 1] = given[..., 1] / given[..., 0]
    primitive[..., 2] = (gamma - 1.0) * (given[..., 2] - 0.5 * given[..., 1] * primitive[..., 1])
    return primitive
