"""Optimisers, one file per kind, with `optimizer(parameters, placement, ...)`; settings have the same names in `ups/config/optimizers`.

Every trainable parameter is claimed exactly once.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ups.kinds import module_of
from ups.training.placement import Placement


def build_optimizer(
    parameters: Mapping[str, nn.Parameter],
    placement: Placement,
    *,
    kind: str,
    learning_rate: float,
    betas: tuple[float, float],
    weight_decay: float,
    **settings: Any,
) -> torch.optim.Optimizer:
    """The optimiser of a kind, see `ups.training.optimizers`.

    Every group's "rate" is its share of the schedule's learning rate, and its "lr" a number on the device, so that a captured
    step follows the schedule.

    Args:
        parameters: by name, whole or the parts of them that this rank holds.
        settings: those of the kind alone.
    """
    shared = {"learning_rate": learning_rate, "betas": betas, "weight_decay": weight_decay}
    optimizer = module_of("ups.training.optimizers", kind).optimizer(
        parameters, placement, **shared, **settings
    )
    for group in optimizer.param_groups:
        device = group["params"][0].device
        # Fused AdamW reads float32 on a GPU; on a CPU float64 gives the bits that a Python number gives.
        dtype = torch.float32 if device.type == "cuda" else torch.float64
        group["lr"] = torch.tensor(learning_rate * group["rate"], dtype=dtype, device=device)
        group["capturable"] = device.type == "cuda"
    return optimizer
