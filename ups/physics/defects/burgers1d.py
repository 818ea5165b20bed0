"""1D Burgers, one frame later."""

from collections.abc import Mapping

from torch import Tensor

from ups.physics.burgers import solve_burgers
from ups.physics.refinement import trigonometric
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
    fine = trigonometric(states, refinement)[..., 0]
    solved = solve_burgers(fine, nu=parameters["nu"], frame_interval=time_step, frames=2)
    return solved[:, 1, ::refinement, None]
