"""Rotary position embedding with integer frequencies: exactly periodic relative positions.

RoFormer (Su et al. 2021, arXiv:2104.09864, eq. 34) rotates each pair of query and key channels by an
angle proportional to the position, so that a score depends on the difference of positions only. With
integer frequencies on the unit domain the difference is taken modulo the period: attention built on it
commutes with every shift of a periodic domain, a symmetry the PDE has and the network need not learn.

An axis with walls has no period. Its positions are turned half as fast, so that the period is two domain
lengths and both ends are told apart; where a wall is, tokens learn from `TokenGrid.wall_features`.

Rejected: learned absolute embeddings (break the shift symmetry; the first implementation had none and
told tokens apart only by a constant offset) and a learned table of relative biases (bound to one token
grid, where decoder queries need arbitrary coordinates).
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def integer_frequencies(count: int, highest: int) -> list[int]:
    """`count` integers from 1 to `highest`, geometrically spaced; repeated at the low end if they must.

    Below 1 the period would be longer than the domain; above the Nyquist frequency of the tokens two
    positions could no longer be told apart.
    """
    if count == 1:
        return [1]
    ratio = max(highest, 1) ** (1 / (count - 1))
    return [max(1, round(ratio**index)) for index in range(count)]


def rotation(
    positions: Tensor, head_dim: int, highest: int, periodic: Sequence[bool] | None = None
) -> Tensor:
    """Rotation table of positions.

    Args:
        positions: [n, axes] in domain lengths, any real number.
        head_dim: channels of one attention head, divisible by 2 * axes; the pairs are shared out evenly
            among the axes.
        highest: largest frequency in periods per domain length.
        periodic: which axes are; None: all.

    Returns:
        [2, n, head_dim]: of every channel the cosine, and the sine with the sign that its partner gets; see `rotate`.
    """
    axes = positions.shape[-1]
    pairs = head_dim // (2 * axes)
    frequencies = torch.tensor(
        [
            [frequency if wraps else frequency / 2 for frequency in integer_frequencies(pairs, limit)]
            for wraps, limit in (
                (wraps, highest if wraps else 2 * highest) for wraps in periodic or (True,) * axes
            )
        ],
        dtype=torch.float64,
        device=positions.device,
    )
    angles = 2 * torch.pi * positions.double().unsqueeze(-1) * frequencies
    cosine, sine = angles.flatten(-2).cos(), angles.flatten(-2).sin()
    table = torch.stack([torch.cat([cosine, cosine], dim=-1), torch.cat([-sine, sine], dim=-1)])
    return table.to(torch.get_default_dtype())


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Rotate channel pairs (i, i + head_dim/2) of x [..., head_dim] by a table [2, ..., head_dim]."""
    cosine, sine = table.to(x.dtype)
    return torch.addcmul(x * cosine, x.roll(x.shape[-1] // 2, dims=-1), sine)
