"""1D compressible flow, one frame later. Straight lines between the points keep density and pressure positive."""

from collections.abc import Mapping

from torch import Tensor

from ups.physics.compressible import solve_compressible
from ups.physics.refinement import linear
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
    assert boundary != "dirichlet"  # the equation has no such boundary
    fine = linear(states, refinement, periodic=boundary == "periodic")
    solved = solve_compressible(
        fine,
        eta=parameters["eta"],
        zeta=parameters["zeta"],
        boundary=boundary,
        frame_interval=time_step,
        frames=2,
    )
    return solved[:, 1, ::refinement]
