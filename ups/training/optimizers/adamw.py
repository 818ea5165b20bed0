"""Fused AdamW (Loshchilov and Hutter 2019)."""

import torch
from torch import nn

from ups.training.groups import decayed_and_others


def optimizer(
    model: nn.Module, *, learning_rate: float, betas: tuple[float, float], weight_decay: float
) -> torch.optim.Optimizer:
    """See `ups.training.optimizers`."""
    groups = decayed_and_others(model.parameters(), weight_decay)
    return torch.optim.AdamW(groups, lr=learning_rate, betas=betas, fused=True)
