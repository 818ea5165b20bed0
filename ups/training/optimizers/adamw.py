"""Fused AdamW (Loshchilov and Hutter 2019)."""

from collections.abc import Mapping

import torch
from torch import nn

from ups.training.groups import decayed_and_others
from ups.training.placement import Placement


def optimizer(
    parameters: Mapping[str, nn.Parameter],
    placement: Placement,
    *,
    learning_rate: float,
    betas: tuple[float, float],
    weight_decay: float,
) -> torch.optim.Optimizer:
    """See `ups.training.optimizers`."""
    del placement  # it changes every number by itself
    groups = decayed_and_others(parameters.values(), weight_decay)
    return torch.optim.AdamW(groups, lr=learning_rate, betas=betas, fused=True)
