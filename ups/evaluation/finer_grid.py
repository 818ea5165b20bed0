"""Fields on a grid finer than the model's: what the encoder sees of them, and where their points are.

The model's grid is taken out of a finer one by PDEBench's plain striding: of N = k n points along an axis, points
0, k, 2k, ... are kept, and training calls the i-th of them (i + 1/2) / n, the centre of the i-th cell of a grid of
n. In the file that point is number k i, so the file's point j has the coordinate

    (j / k + 1/2) / n

in the model: every k-th point of the file falls on a point of the model, and distances are those of the file. It
is not (j + 1/2) / N: the model's frame lies (k - 1) / (2 N) further along the axis, for a strided grid starts at
its first point and not in the middle of its first k. On a periodic axis coordinates wrap around. On an axis with
walls the last points come to lie up to (1/2 - 1/k) / n past the end of the unit domain (none for k = 2); they are
decoded there all the same. Rejected: leaving them out (the error would no longer be that of the file's grid, and
the strip along the wall, the hardest part, would be the one that is not counted) and moving the grid (training
had every k-th point on a point of the model).
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def strided(fields: Tensor, stride: int, axes: int) -> Tensor:
    """Every k-th point of each of the space axes of [..., *grid, C], from the first."""
    every = (slice(None, None, stride),) * axes
    return fields[(..., *every, slice(None))]


def finer_coordinates(grid: Sequence[int], stride: int, *, periodic: bool) -> Tensor:
    """Where a model of `grid` finds the points of a grid `stride` times finer: [prod(stride * grid), axes], C order.

    In domain lengths; float32, and exactly `cell_centres(grid)` for a stride of 1.
    """
    axes = []
    for points in grid:
        position = (torch.arange(stride * points, dtype=torch.float64) / stride + 0.5) / points
        axes.append(position % 1 if periodic else position)
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, len(axes)).float()


def interpolated(values: Tensor, stride: int, *, periodic: bool) -> Tensor:
    """Values [*grid, C] at the points of a grid `stride` times finer, linearly; constant past the last point."""
    for axis in range(values.ndim - 1):
        points = values.shape[axis]
        position = torch.arange(stride * points, device=values.device)
        below, part = position // stride, (position % stride).to(values.dtype) / stride
        above = (below + 1) % points if periodic else (below + 1).clamp(max=points - 1)
        weight = part.view(-1, *(1,) * (values.ndim - 1 - axis))
        low, high = values.index_select(axis, below), values.index_select(axis, above)
        values = low * (1 - weight) + high * weight
    return values
