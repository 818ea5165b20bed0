"""States of one space axis on a grid whose every k-th point is one of theirs, as our generators stride."""

import torch
from torch import Tensor


def trigonometric(values: Tensor, factor: int) -> Tensor:
    """The trigonometric polynomial through periodic values [n, x, C], at `factor` times as many points.

    Of an even number of points the highest wave is a cosine that stands on them.
    """
    if factor == 1:
        return values
    points = values.shape[1]
    coarse = torch.fft.rfft(values, dim=1)
    if points % 2 == 0:
        coarse[:, -1] *= 0.5
    fine = coarse.new_zeros(len(values), factor * points // 2 + 1, values.shape[2])
    fine[:, : coarse.shape[1]] = coarse
    return torch.fft.irfft(fine, factor * points, dim=1) * factor


def linear(values: Tensor, factor: int, *, periodic: bool) -> Tensor:
    """Straight lines through values [n, x, C], which keep them positive; beyond the last point its value."""
    if factor == 1:
        return values
    following = values.roll(-1, dims=1)
    if not periodic:
        following[:, -1] = values[:, -1]
    part = torch.arange(factor, device=values.device, dtype=values.dtype)[:, None] / factor
    return (values[:, :, None] * (1 - part) + following[:, :, None] * part).flatten(1, 2)
