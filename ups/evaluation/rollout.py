"""Rollouts: encode the first frame once, forecast in latents, decode every frame."""

import torch
from torch import Tensor

from ups.evaluation.forecaster import Forecaster
from ups.models.codec import ProblemCodec


@torch.no_grad()
def decoded_rollout(
    forecaster: Forecaster,
    codec: ProblemCodec,
    initial: Tensor,
    known: Tensor | None,
    scalars: Tensor,
    steps: int,
    *,
    time_step: float | Tensor,
    parameters: dict[str, float],
    coordinates: Tensor | None = None,
    generator: torch.Generator,
) -> Tensor:
    """Forecasts of physical fields from first frames.

    Args:
        forecaster: of the codec's problem.
        initial: [n, *grid, C] physical first frames on the codec's grid.
        known: [C] bool, which fields the first frames hold (of a map: the given ones); None: all.
        scalars: [S] conditioning, the same for all.
        time_step: between frames; [n] where trajectories differ.
        parameters: of the equation.
        coordinates: [Q, axes] where the forecast is decoded, in domain lengths; None: the codec's grid.

    Returns:
        [n, members, steps, Q, C]; the given first frame is not part of it.
    """
    held = None if known is None else known.expand(len(initial), 1, -1)
    frame = codec.frame(initial, parameters)
    first = codec.encode(initial.unsqueeze(1), torch.zeros(1, device=initial.device), frame, held)[:, 0]
    latents = forecaster.rollout(first, frame.conditioning(scalars), steps, generator)
    members = latents.shape[1]
    time_steps = initial.new_ones(len(initial)) * time_step
    elapsed = time_steps[:, None] * torch.arange(1, steps + 1, device=initial.device)
    every = elapsed.repeat_interleave(members, dim=0)
    decoded = codec.decode(latents.flatten(0, 1), every, frame.repeat(members), coordinates)
    return decoded.unflatten(0, (len(initial), members))
