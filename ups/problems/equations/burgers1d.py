"""1D Burgers: what it is, and the settings of its generator."""

import math
from typing import Literal

from pydantic import Field as Setting

from ups.problems.generated import FromSinusoids
from ups.problems.problem import (
    AMPLITUDE,
    LENGTH,
    TIME_STEP,
    TRAJECTORY,
    Diffusion,
    ExpectedDistance,
    Field,
    Parameter,
    Problem,
    StoredArray,
    Symmetries,
)
from ups.section import Positive

PROBLEM = Problem(
    name="burgers1d",
    title="1D Burgers",
    equation="u_t + (u^2/2)_x = (nu/pi) u_xx",
    axes=("x",),
    domain=((0.0, 1.0),),
    boundaries=("periodic",),
    parameters=(Parameter("nu", "Nu", "viscosity times pi, length^2/time"),),
    fields=(Field("u", "length/time", conserved=True, dissipated=True),),
    arrays=(StoredArray("tensor", TRAJECTORY),),
    # With u = a v and t = s / a, v solves the equation with viscosity nu / a.
    symmetries=Symmetries(odd=("u",), galilean="u", scaling=("u",)),
    diffusion=Diffusion("nu", factor=1 / math.pi),
    numbers=(
        {TIME_STEP: 1, AMPLITUDE: 1, LENGTH: -1},
        {"nu": 1, AMPLITUDE: -1, LENGTH: -1},
    ),
    distances=(ExpectedDistance(0.001, 4, 2e-4), ExpectedDistance(0.01, 4, 2e-4)),
    file_sizes={"resolution": 1024, "frames": 201, "frame_interval": 0.01},
)


class GeneratedBurgers(FromSinusoids):
    """1D Burgers: PDEBench's equation, scheme and distribution of initial states."""

    equation: Literal["burgers1d"] = "burgers1d"
    nu: Positive = Setting(description="PDEBench's nu; the viscosity is nu / pi")
