"""Optimisers of their own for hidden matrices, with AdamW for all else, as one optimiser.

Biases, gains and the maps in and out of a network are AdamW's.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from ups.training.groups import Group, decayed_and_others

_HIDDEN = {"blocks", "convolutions", "down", "middle", "up"}
"""Parts of networks that map hidden channels to hidden channels."""


def hidden_matrices(parameters: Mapping[str, nn.Parameter]) -> list[nn.Parameter]:
    """Trainable matrices between hidden channels, and stacks of them: all but the maps in and out of a network, norms
    and biases.

    parameters: by name.
    """
    return [
        parameter
        for name, parameter in parameters.items()
        if parameter.requires_grad and parameter.ndim in {2, 3} and _HIDDEN & set(name.split("."))
    ]


def matrices_and_others(
    parameters: Mapping[str, nn.Parameter], weight_decay: float, *, rate: float
) -> list[Group]:
    """The groups of AdamW, and one of the hidden matrices, with "matrices": True, if there are any.

    rate: of the matrices, their share of the schedule's learning rate.
    """
    hidden = hidden_matrices(parameters)
    claimed = {id(parameter) for parameter in hidden}
    others = (parameter for parameter in parameters.values() if id(parameter) not in claimed)
    groups = decayed_and_others(others, weight_decay)
    if hidden:
        own: Group = {"role": "hidden matrices", "params": hidden, "weight_decay": weight_decay, "rate": rate}
        groups.append(own | {"matrices": True})
    return groups


class MatrixOptimizer(torch.optim.AdamW):
    """AdamW whose groups with "matrices": True are stepped by `step_matrices`."""

    def __init__(self, groups: list[Group], *, lr: float, betas: tuple[float, float]) -> None:
        super().__init__(groups, lr=lr, betas=betas, fused=True)
        for group in self.param_groups:
            group.setdefault("matrices", False)

    def __setstate__(self, state: dict[str, Any]) -> None:
        # AdamW's own brings states of older versions up to date, for which each must have a count of steps.
        torch.optim.Optimizer.__setstate__(self, state)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One step of both."""
        if closure is not None:
            raise ValueError("losses are computed by the training step, not by a closure")
        groups = self.param_groups
        try:
            self.param_groups = [group for group in groups if not group["matrices"]]
            super().step()
        finally:
            self.param_groups = groups
        for group in groups:
            if group["matrices"]:
                self.step_matrices(group)

    @abstractmethod
    def step_matrices(self, group: Group) -> None:
        """One step of a group of matrices, some of which may have no gradient."""
