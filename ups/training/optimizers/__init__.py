"""Optimisers, one file per kind, with `optimizer(model, ...)`; settings have the same names in `ups/config/optimizers`.

Every trainable parameter is claimed exactly once.
"""

from typing import Any

import torch
from torch import nn

from ups.kinds import module_of


def build_optimizer(
    model: nn.Module,
    *,
    kind: str,
    learning_rate: float,
    betas: tuple[float, float],
    weight_decay: float,
    **settings: Any,
) -> torch.optim.Optimizer:
    """The optimiser of a kind, see `ups.training.optimizers`.

    Every group's "rate" is its share of the schedule's learning rate.

    Args:
        settings: those of the kind alone.
    """
    shared = {"learning_rate": learning_rate, "betas": betas, "weight_decay": weight_decay}
    return module_of("ups.training.optimizers", kind).optimizer(model, **shared, **settings)
