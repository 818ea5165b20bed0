"""Values anywhere from values on a regular grid: what makes a decoder of grid values an any-point decoder.

Along a periodic axis values are those of the trigonometric polynomial through the points, exact for all that the
grid can hold. Between walls they are those of the cubic through the four nearest points (one-sided beside a wall):
a polynomial through all points would oscillate, and a field with kinks has no band limit to keep.

Rejected: attention from query coordinates to tokens (UPT section 3.3). It has to learn to interpolate, is one more network
in every decoded frame, and set the floor of every forecast: 0.0085 on Burgers, where this returns grid points as they are.
"""

import torch
from torch import Tensor

from ups.models.token_grid import TokenGrid

_STENCIL = 4
_DENSE = 64  # points per query from which one matrix product is faster than gathering


def interpolate(values: Tensor, coordinates: Tensor, token_grid: TokenGrid) -> Tensor:
    """Grid values [B, *grid, C] at coordinates [Q, axes] in domain lengths: [B, Q, C]."""
    flat = values.flatten(1, -2)
    index, weight = _stencils(coordinates.double(), token_grid)
    weight = weight.to(values.dtype)
    if index.shape[1] >= _DENSE:
        matrix = values.new_zeros(len(coordinates), flat.shape[1])
        matrix.scatter_add_(1, index, weight)
        return matrix @ flat
    gathered = flat[:, index.flatten()].unflatten(1, tuple(index.shape))
    return torch.einsum("bqsc,qs->bqc", gathered, weight)


def at_points(fields: Tensor, coordinates: Tensor, token_grid: TokenGrid) -> Tensor:
    """Fields [n, t, *grid, C] at each trajectory's own coordinates [n, P, axes]: [n, t, P, C]."""
    return torch.stack(
        [interpolate(own, places, token_grid) for own, places in zip(fields, coordinates, strict=True)]
    )


def _stencils(coordinates: Tensor, token_grid: TokenGrid) -> tuple[Tensor, Tensor]:
    """Points [Q, S] that a query's value is made of, and their weights [Q, S]."""
    index = torch.zeros(len(coordinates), 1, dtype=torch.long, device=coordinates.device)
    weight = torch.ones(len(coordinates), 1, dtype=torch.float64, device=coordinates.device)
    for axis, (points, wraps) in enumerate(zip(token_grid.grid, token_grid.periodic, strict=True)):
        along = coordinates[:, axis] * points - 0.5  # in cells; points are at whole numbers
        here, part = _trigonometric(along, points) if wraps else _cubic(along, points)
        index = (index[:, :, None] * points + here[:, None]).flatten(1)
        weight = (weight[:, :, None] * part[:, None]).flatten(1)
    return index, weight


def _trigonometric(along: Tensor, points: int) -> tuple[Tensor, Tensor]:
    """The cardinal function of N points: sin(pi d) / (N tan(pi d / N)), for odd N with sin in place of tan."""
    every = torch.arange(points, device=along.device)
    distance = along[:, None] - every
    angle = torch.pi * distance / points
    period = torch.sin(angle) if points % 2 else torch.tan(angle)
    nearest = distance.round()
    # At a point the quotient is 0 / 0: the value there is that of the point itself.
    at_point = (distance - nearest).abs() < 1e-9
    kernel = torch.sin(torch.pi * distance) / (points * torch.where(at_point, 1.0, period))
    itself = (nearest % points == 0).to(kernel.dtype)
    return every.expand(len(along), -1), torch.where(at_point, itself, kernel)


def _cubic(along: Tensor, points: int) -> tuple[Tensor, Tensor]:
    """Lagrange's polynomial through the nearest points, four unless the grid has fewer."""
    width = min(_STENCIL, points)
    first = (along.floor() - (width - 1) // 2).clamp(0, points - width)
    nodes = first[:, None] + torch.arange(width, device=along.device)
    weights = []
    for node in range(width):
        others = [other for other in range(width) if other != node]
        factors = [(along - nodes[:, other]) / (node - other) for other in others]
        weights.append(torch.stack(factors).prod(dim=0) if factors else torch.ones_like(along))
    return nodes.long(), torch.stack(weights, dim=1)
