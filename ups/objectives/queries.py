"""Which points of a grid a step decodes."""

import torch
from torch import Tensor


def drawn_points(points: int, wanted: int | None, generator: torch.Generator) -> Tensor | None:
    """Indices of `wanted` different points out of `points`, the same for a whole batch; None: all of them.

    A loss at random points is an unbiased estimate of the loss on the grid, at a fraction of its cost: on a fine
    grid decoding every point is most of a step.
    """
    if wanted is None or wanted >= points:
        return None
    return torch.randperm(points, generator=generator, device=generator.device)[:wanted]
