"""How states go on in time: what a problem says of it, and an operator applied again and again."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ups.models.operators import LatentOperator
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


def rollout(
    operator: nn.Module, state: Tensor, scalars: Tensor, problem: str, steps: int, stride: int = 1
) -> Tensor:
    """Apply an operator again and again: [B, K, d] to [B, steps, K, d], the given state not included.

    stride: of each application, in frames.
    """
    states = []
    for _ in range(steps):
        state = operator(state, scalars, problem, stride)
        states.append(state)
    return torch.stack(states, dim=1)


def forecast(operator: LatentOperator, first: Tensor, scalars: Tensor, problem: str, frames: int) -> Tensor:
    """The frames after a first state [B, K, d], each by few applications: [B, frames, K, d].

    A frame is one stride away from an earlier one, by the longest stride that does not reach beyond the first. So
    as many frames as the stride is long are computed together, and the last frame of 40 takes eight applications
    where strides are 1, 2, 4 and 8. With strides of one frame this is `rollout`.
    """
    states = [first]
    while (held := len(states)) <= frames:
        stride = max(stride for stride in operator.time_steps if stride <= held)
        before = torch.stack(states[held - stride : frames + 1 - stride], dim=1)
        count = before.shape[1]
        after = operator(before.flatten(0, 1), scalars.repeat_interleave(count, dim=0), problem, stride)
        states.extend(after.unflatten(0, (len(first), count)).unbind(dim=1))
    return torch.stack(states[1:], dim=1)
