"""How well a model obeys the symmetries of its equation.

The first states are transformed by a random symmetry, forecast, and transformed back: an equivariant model gives the same
forecast as without. A symmetry that is used exactly leaves rounding alone; what is learnt leaves an error that
says how far it is from a law.
"""

import torch
from torch import Tensor

from ups.evaluation.forecaster import Forecaster
from ups.evaluation.rollout import decoded_rollout
from ups.losses.relative import relative_l2_per_field
from ups.models.codec import ProblemCodec
from ups.models.reference_frame import ReferenceFrame
from ups.problems import Symmetry


@torch.no_grad()
def equivariance_errors(
    forecaster: Forecaster,
    codec: ProblemCodec,
    initial: Tensor,
    known: Tensor | None,
    scalars: Tensor,
    steps: int,
    *,
    time_step: float,
    parameters: dict[str, float],
    generator: torch.Generator,
) -> dict[Symmetry, float]:
    """Relative L2 between forecast and transformed forecast, mean over trajectories and scored fields, by symmetry.

    Arguments as of `decoded_rollout`; of a deterministic forecaster. A field that is proportional to a parameter
    obeys by declaration, and is left out.
    """
    shape = codec.shape
    declared = shape.problem.symmetries
    elapsed = time_step * torch.arange(1, steps + 1, device=initial.device)

    def forecast(states: Tensor, numbers: Tensor, step: Tensor | float) -> Tensor:
        """[n, t, *grid, C]"""
        frames = decoded_rollout(
            forecaster,
            codec,
            states,
            known,
            numbers,
            steps,
            time_step=step,
            parameters=parameters,
            generator=generator,
        )[:, 0]
        return frames.unflatten(2, shape.grid)

    plain = forecast(initial, scalars, time_step)
    errors: dict[Symmetry, float] = {}
    for symmetry in shape.problem.has(shape.boundary, shape.variables):
        if symmetry == "scaling" and declared.scaled_by in parameters:
            continue
        transformed = ReferenceFrame.random(shape, initial, (symmetry,), generator)
        start = transformed.enter(initial.unsqueeze(1), elapsed.new_zeros(1))[:, 0]
        step = transformed.times(elapsed[:1])[:, 0]
        back = transformed.leave(forecast(start, transformed.conditioning(scalars), step), elapsed)
        errors[symmetry] = (
            relative_l2_per_field(shape.scored_fields(back), shape.scored_fields(plain)).mean().item()
        )
    return errors
