"""Consistency models (Song et al. 2023, arXiv:2303.01469) in the angles of `ups.models.edm`."""

import math

import torch
from torch import Tensor

from ups.models.edm import Network, wide


def jump(network: Network, y: Tensor, angle: Tensor, last: float) -> Tensor:
    """The consistency function: along the flow from y [B, ...] at angle [B] to the angle `last`, in one call.

    cos(a - last) y + sin(a - last) F(y, a): the identity at `last` whatever the weights (their eq. 5), exact for
    data of unit deviation, and for last -> 0 the denoiser of the same F, whose weights it can therefore start from.
    """
    turn = angle - last
    return wide(turn.cos(), y) * y + wide(turn.sin(), y) * network(y, angle)


def consistency_sample(network: Network, noises: list[Tensor], second: float, last: float) -> Tensor:
    """Algorithm 1 (multistep consistency sampling): one call per noise.

    Args:
        noises: unit normal [B, ...], one per call.
        second: angle of every call but the first, which starts from pure noise.
        last: angle at which the student is the identity.

    Returns:
        Clean tokens [B, ...].
    """
    first, *others = noises
    y = jump(network, first, first.new_full((len(first),), math.pi / 2), last)
    kept = math.cos(second) / math.cos(last)
    added = math.sqrt(math.sin(second) ** 2 - (kept * math.sin(last)) ** 2)
    for noise in others:
        y = kept * y + added * noise
        y = jump(network, y, y.new_full((len(y),), second), last)
    return y


def pseudo_huber(first: Tensor, second: Tensor) -> Tensor:
    """Distance of Song and Dhariwal 2023 (arXiv:2310.14189, section 3.3), c = 0.00054 sqrt(D), [B]."""
    squared = (first - second).square().flatten(1).sum(dim=1)
    c = 0.00054 * first[0].numel() ** 0.5
    return torch.sqrt(squared + c**2) - c
