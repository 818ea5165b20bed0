"""Rollouts: encode the first frame once, step in latents, decode every frame."""

import torch
from torch import Tensor

from ups.inference.forecaster import Step
from ups.models.codec import Codec


@torch.no_grad()
def decoded_rollout(
    step: Step,
    codec: Codec,
    initial: Tensor,
    scalars: Tensor,
    steps: int,
    coordinates: Tensor,
    *,
    members: int = 1,
    generator: torch.Generator,
) -> Tensor:
    """Forecasts of physical fields from first frames.

    Args:
        step: one time step in latents.
        initial: [n, *grid, C] physical first frames.
        scalars: [S] conditioning, the same for all.
        coordinates: [Q, axes] where the forecast is decoded.
        members: forecasts per trajectory, each rolled out on its own.

    Returns:
        [n, members, steps, Q, C]; the given first frame is not part of it.
    """
    state = codec.encode(initial).repeat_interleave(members, dim=0)
    conditions = scalars.expand(len(state), -1)
    frames = []
    for _ in range(steps):
        state = step(state, conditions, generator)
        frames.append(codec.decode(state, coordinates))
    return torch.stack(frames, dim=1).unflatten(0, (len(initial), members))
