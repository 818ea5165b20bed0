"""Relative L2 of differences between neighbouring points (Li et al. 2022, arXiv:2106.06898, section 3: Sobolev norms).

A wave weighs by its wavenumber, so that fronts count for more than in the field's own norm.
"""

import torch
from torch import Tensor

from ups.losses.relative import relative_l2_by_frame


def term(error: Tensor, target: Tensor) -> Tensor:
    """See `ups.losses.terms`."""
    return relative_l2_by_frame(_differences(error), _differences(target)).mean()


def _differences(values: Tensor) -> Tensor:
    """[B, T, *grid, C] to [B, T, differences, C], along all axes of space; none across the end of an axis."""
    axes = range(2, values.ndim - 1)
    return torch.cat([values.diff(dim=axis).flatten(2, -2) for axis in axes], dim=2)
