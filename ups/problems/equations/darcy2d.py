"""2D Darcy flow: what it is, and the settings of its generator."""

from typing import Literal

from pydantic import Field as Setting

from ups.problems.generated import Generated
from ups.problems.problem import (
    AMPLITUDE,
    ExpectedDistance,
    Field,
    Parameter,
    Problem,
    StoredArray,
    Symmetries,
)
from ups.section import Positive

PROBLEM = Problem(
    name="darcy2d",
    title="2D Darcy flow",
    # The stored solution is the frame at t = 1.75 of a relaxation u_t = div(a grad u) + beta; it is
    # treated as a map from a to u.
    equation="-div(a grad u) = beta",
    axes=("x", "y"),
    domain=((0.0, 1.0), (0.0, 1.0)),
    boundaries=("dirichlet",),
    parameters=(Parameter("beta", "beta", "constant force, u/time"),),
    fields=(
        Field("a", "length^2/time", positive=True, given=True),
        Field("u", "1"),
    ),
    arrays=(
        StoredArray("nu", ("sample", "x", "y")),
        StoredArray("tensor", ("sample", "channel", "x", "y")),
    ),
    time_key=None,
    is_map=True,
    symmetries=Symmetries(square=True, scaling=("u",), scaled_by="beta"),
    numbers=({"beta": 1, AMPLITUDE: -1},),
    distances=(
        ExpectedDistance(0.01, 64, 0.376, 0.198),
        ExpectedDistance(0.1, 64, 0.163, 0.023),
        ExpectedDistance(1.0, 64, 3.3e-2, 2.2e-3),
        ExpectedDistance(10.0, 64, 1.9e-3, 1.9e-4),
        ExpectedDistance(100.0, 64, 2.6e-3, 1.2e-4),
    ),
    file_sizes={"resolution": 128},
)


class GeneratedDarcy(Generated):
    """2D Darcy flow: PDEBench's distribution of coefficients, its stored frame of the relaxation."""

    equation: Literal["darcy2d"]
    beta: Positive = Setting(description="constant force")
