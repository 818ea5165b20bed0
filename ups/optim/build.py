"""The optimiser that a configuration names; every trainable parameter is claimed exactly once."""

from typing import Any

import torch
from torch import nn

from ups.optim.muon import MuonAdamW, hidden_matrices


def build_optimizer(
    model: nn.Module,
    *,
    learning_rate: float,
    betas: tuple[float, float],
    weight_decay: float,
    matrix_learning_rate: float | None = None,
    momentum: float = 0.95,
) -> torch.optim.Optimizer:
    """Fused AdamW (Loshchilov and Hutter 2019), or Muon for hidden matrices with AdamW for the rest.

    Norm gains and biases are not decayed. Every group's "rate" is its share of the schedule's learning rate.

    Args:
        matrix_learning_rate: Muon's peak rate for hidden matrices; None: AdamW alone.
        momentum: Muon's.
    """
    hidden = [] if matrix_learning_rate is None else hidden_matrices(model)
    claimed = {id(parameter) for parameter in hidden}
    others = [p for p in model.parameters() if p.requires_grad and id(p) not in claimed]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in others if p.ndim >= 2], "weight_decay": weight_decay, "rate": 1.0},
        {"params": [p for p in others if p.ndim < 2], "weight_decay": 0.0, "rate": 1.0},
    ]
    if matrix_learning_rate is None:
        return torch.optim.AdamW(
            [g for g in groups if g["params"]], lr=learning_rate, betas=betas, fused=True
        )
    rate = matrix_learning_rate / learning_rate
    groups.append({"params": hidden, "weight_decay": weight_decay, "rate": rate, "muon": True})
    return MuonAdamW([g for g in groups if g["params"]], lr=learning_rate, betas=betas, momentum=momentum)
