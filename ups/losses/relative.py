"""Relative errors."""

import torch
from torch import Tensor


def relative_l2(prediction: Tensor, target: Tensor, *, start_dim: int = 1) -> Tensor:
    """||prediction - target|| / ||target|| over the axes from `start_dim` on.

    With start_dim 1 and shape [B, T, *grid] this is the trajectory relative L2 of one field per sample, [B].
    Shapes must be equal: broadcasting would give plausible, wrong numbers.

    Raises:
        ValueError: shapes differ.
    """
    if prediction.shape != target.shape:
        raise ValueError(f"shapes differ: {tuple(prediction.shape)} and {tuple(target.shape)}")
    error = (prediction - target).flatten(start_dim).norm(dim=-1)
    return error / target.flatten(start_dim).norm(dim=-1)


def relative_l2_per_field(prediction: Tensor, target: Tensor) -> Tensor:
    """||prediction - target|| / ||target|| of each field over all axes but the first and last.

    Fields have different units (a pressure is no density), so their squares are never added: whoever needs one
    number takes the mean of these. [B, ..., C] to [B, C]; shapes must be equal.

    Raises:
        ValueError: shapes differ.
    """
    return relative_l2(prediction.movedim(-1, 1), target.movedim(-1, 1), start_dim=2)


def relative_l2_by_frame(error: Tensor, target: Tensor) -> Tensor:
    """||error|| / ||target|| of every frame and field: errors and targets [B, T, *grid, C] to [B, T, C].

    A frame of zeros has no relative error; its norm is taken as the smallest number there is.
    """
    size = target.flatten(2, -2).norm(dim=2)
    return error.flatten(2, -2).norm(dim=2) / size.clamp_min(torch.finfo(size.dtype).tiny)
