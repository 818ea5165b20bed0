"""1D advection, one frame later: exactly, so that no finer grid is needed."""

from collections.abc import Mapping

from torch import Tensor

from ups.physics.advection import solve_advection
from ups.problems import Boundary


def advanced(
    states: Tensor,
    *,
    refinement: int,
    time_step: float,
    parameters: Mapping[str, float],
    boundary: Boundary,
) -> Tensor:
    """See `ups.physics.defects`."""
    return solve_advection(states[..., 0], beta=parameters["beta"], frame_interval=time_step, frames=2)[
        :, 1, :, None
    ]
