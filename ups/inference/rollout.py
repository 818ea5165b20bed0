"""Rollouts: encode the first frame once, step in latents, decode every frame."""

import torch
from torch import Tensor

from ups.inference.forecaster import Step
from ups.models.codec import ProblemCodec

# Decoding needs some kilobytes per point: a frame of two axes for a whole batch would take gigabytes at once.
_POINTS_AT_ONCE = 2**18


@torch.no_grad()
def decoded_rollout(
    step: Step,
    codec: ProblemCodec,
    initial: Tensor,
    known: Tensor | None,
    scalars: Tensor,
    steps: int,
    coordinates: Tensor,
    *,
    members: int = 1,
    generator: torch.Generator,
) -> Tensor:
    """Forecasts of physical fields from first frames.

    Args:
        step: one time step in latents, of the codec's problem.
        initial: [n, *grid, C] physical first frames on the codec's grid.
        known: [C] bool, which fields the first frames hold (of a map: the given ones); None: all.
        scalars: [S] conditioning, the same for all.
        coordinates: [Q, axes] where the forecast is decoded, in domain lengths; on the codec's grid or not.
        members: forecasts per trajectory, each rolled out on its own.

    Returns:
        [n, members, steps, Q, C]; the given first frame is not part of it.
    """
    held = None if known is None else known.expand(len(initial), -1)
    state = codec.encode(initial, held).repeat_interleave(members, dim=0)
    conditions = scalars.expand(len(state), -1)
    at_once = max(1, _POINTS_AT_ONCE // len(coordinates))
    frames = []
    for _ in range(steps):
        state = step(state, conditions, generator)
        frames.append(torch.cat([codec.decode(part, coordinates) for part in state.split(at_once)]))
    return torch.stack(frames, dim=1).unflatten(0, (len(initial), members))
