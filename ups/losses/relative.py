"""Relative errors."""

from torch import Tensor


def relative_l2(prediction: Tensor, target: Tensor, *, start_dim: int = 1) -> Tensor:
    """||prediction - target|| / ||target|| over the axes from `start_dim` on.

    With start_dim 1 and shape [B, T, *grid, C] this is the trajectory relative L2 per sample, [B]. Shapes
    must be equal: broadcasting would give plausible, wrong numbers.

    Raises:
        ValueError: shapes differ.
    """
    if prediction.shape != target.shape:
        raise ValueError(f"shapes differ: {tuple(prediction.shape)} and {tuple(target.shape)}")
    error = (prediction - target).flatten(start_dim).norm(dim=-1)
    return error / target.flatten(start_dim).norm(dim=-1)
