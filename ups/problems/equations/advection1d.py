"""1D advection: what it is, and the settings of its generator."""

from typing import Literal

from pydantic import Field as Setting

from ups.problems.generated import FromSinusoids
from ups.problems.problem import (
    LENGTH,
    TIME_STEP,
    TRAJECTORY,
    ExpectedDistance,
    Field,
    Parameter,
    Problem,
    StoredArray,
    Symmetries,
)
from ups.section import Positive

PROBLEM = Problem(
    name="advection1d",
    title="1D advection",
    equation="u_t + beta u_x = 0",
    axes=("x",),
    domain=((0.0, 1.0),),
    boundaries=("periodic",),
    parameters=(Parameter("beta", "beta", "speed, length/time"),),
    fields=(Field("u", "1", conserved=True, dissipated=True),),
    arrays=(StoredArray("tensor", TRAJECTORY),),
    # Linear. Its Galilean frame would be the solution itself, and is not declared.
    symmetries=Symmetries(offset=("u",), scaling=("u",)),
    numbers=({TIME_STEP: 1, "beta": 1, LENGTH: -1},),
    distances=(ExpectedDistance(0.1, 4, 6e-6), ExpectedDistance(1.0, 4, 6e-4)),
    file_sizes={"resolution": 1024, "frames": 201, "frame_interval": 0.01},
)


class GeneratedAdvection(FromSinusoids):
    """1D advection: PDEBench's distribution of initial states."""

    equation: Literal["advection1d"]
    beta: Positive = Setting(description="speed")
    scheme: Literal["exact", "pdebench"] = Setting(
        default="exact",
        description="exact: the initial state, shifted; pdebench: its upwind scheme, numerical diffusion included",
    )
