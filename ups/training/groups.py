"""Groups of parameters, as all optimisers want them."""

from collections.abc import Iterable
from typing import Any

from torch import nn

Group = dict[str, Any]
"""{"role", "params", "weight_decay", "rate"}: what they are, in words; rate is the group's share of the schedule's learning rate."""


def decayed_and_others(parameters: Iterable[nn.Parameter], weight_decay: float) -> list[Group]:
    """Trainable parameters in two groups: norm gains and biases are not decayed. Empty groups are left out."""
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    matrices, others = [p for p in trainable if p.ndim >= 2], [p for p in trainable if p.ndim < 2]
    groups: list[Group] = [
        {"role": "matrices", "params": matrices, "weight_decay": weight_decay, "rate": 1.0},
        {"role": "gains and biases", "params": others, "weight_decay": 0.0, "rate": 1.0},
    ]
    return [group for group in groups if group["params"]]
