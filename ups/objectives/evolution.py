"""How states go on in time: what a problem says of it, and an operator applied again and again."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ups.problems import Symmetry


@dataclass(frozen=True)
class Evolution:
    """What an objective must know of a problem beside its codec.

    Attributes:
        time_step: between frames, in the problem's units; 1 for a map.
        parameters: of the equation.
        augment: symmetries that are drawn at random.
    """

    time_step: float
    parameters: dict[str, float]
    augment: tuple[Symmetry, ...] = ()


def rollout(operator: nn.Module, state: Tensor, scalars: Tensor, problem: str, steps: int) -> Tensor:
    """Apply an operator again and again: [B, K, d] to [B, steps, K, d], the given state not included."""
    states = []
    for _ in range(steps):
        state = operator(state, scalars, problem)
        states.append(state)
    return torch.stack(states, dim=1)
