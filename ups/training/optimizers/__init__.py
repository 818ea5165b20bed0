"""Optimisers, one file per kind, with `optimizer(parameters, placement, ...)`; settings have the same names in `ups/config/optimizers`.

Every trainable parameter is claimed exactly once.

Rejected: moments that lie in the host's memory, as torchao's CPUOffloadOptimizer has them. Those of AdamW for the 21 million weights
of the largest model here take 171 MB of a GPU's 80 GB; offloading pays from a billion weights on, and costs a transfer of every gradient
and every weight in each step. torchao's needs a GPU, copies gradients in hooks of the backward pass, before they are averaged over ranks
and clipped, and steps by optimisers of its own, which a checkpoint does not see. adamw_8bit has a quarter of the moments, where they are.

Schedule-free AdamW (Defazio et al. 2024, arXiv:2405.15682): the weights that it is for are an average of its own, which validations and
publishing would have to ask it for instead of the loop's; and at equal steps it errs more than AdamW with a cosine (LOG.md).
"""

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ups.kinds import module_of
from ups.training.placement import Placement

log = logging.getLogger(__name__)


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
    step follows the schedule. The groups are logged, each with its peak rate.

    Args:
        parameters: by name, whole or the parts of them that this rank holds.
        settings: those of the kind alone.
    """
    shared = {"learning_rate": learning_rate, "betas": betas, "weight_decay": weight_decay}
    optimizer = module_of("ups.training.optimizers", kind).optimizer(
        parameters, placement, **shared, **settings
    )
    for group in optimizer.param_groups:
        log.info(
            "%s, %s: %d tensors, %d weights, learning rate %g, decay %g",
            kind,
            group["role"],
            len(group["params"]),
            sum(parameter.numel() for parameter in group["params"]),
            learning_rate * group["rate"],
            group["weight_decay"],
        )
        device = group["params"][0].device
        # Fused AdamW reads float32 on a GPU; on a CPU float64 gives the bits that a Python number gives.
        dtype = torch.float32 if device.type == "cuda" else torch.float64
        group["lr"] = torch.tensor(learning_rate * group["rate"], dtype=dtype, device=device)
        group["capturable"] = device.type == "cuda"
    return optimizer
