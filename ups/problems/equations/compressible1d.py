"""1D compressible Navier-Stokes: what it is, and the settings of its generator."""

from typing import Literal

from pydantic import Field as Setting

from ups.problems.generated import GeneratedEvolution
from ups.problems.problem import (
    LENGTH,
    TIME_STEP,
    TRAJECTORY,
    Field,
    Parameter,
    Problem,
    StoredArray,
    Symmetries,
    Variables,
)
from ups.section import Positive

PROBLEM = Problem(
    name="compressible1d",
    title="1D compressible Navier-Stokes",
    equation="rho_t + (rho v)_x = 0;  (rho v)_t + (rho v^2 + p)_x = viscous;  "
    "e_t + (v (e + p))_x = viscous;  e = p/(gamma - 1) + rho v^2/2, gamma = 5/3",
    axes=("x",),
    domain=((-1.0, 1.0),),
    boundaries=("periodic", "outflow"),
    parameters=(
        Parameter("eta", "eta", "shear viscosity over density, length^2/time"),
        Parameter("zeta", "zeta", "bulk viscosity over density, length^2/time"),
    ),
    fields=(
        Field("density", "mass/length", positive=True, conserved=True),
        Field("velocity", "length/time"),
        Field("pressure", "mass length/time^2", positive=True),
    ),
    conserved_fields=(
        Field("density", "mass/length", positive=True, conserved=True),
        Field("momentum", "mass/time", conserved=True),
        Field("energy", "mass length/time^2", positive=True, conserved=True),
    ),
    arrays=(
        StoredArray("density", TRAJECTORY),
        StoredArray("Vx", TRAJECTORY),
        StoredArray("pressure", TRAJECTORY),
    ),
    # Viscosity is per density, so density and pressure count only by their quotient. (In the solver, down to its pressure floor.)
    symmetries=Symmetries(
        odd=("velocity", "momentum"),
        galilean="velocity",
        scaling=("density", "pressure"),
        scaled_by="density",
    ),
    numbers=(
        {TIME_STEP: 1, LENGTH: -1},
        {"eta": 1, LENGTH: -1},
        {"zeta": 1, LENGTH: -1},
    ),
    file_sizes={"resolution": 1024, "frames": 101, "frame_interval": 0.01},
)


class GeneratedCompressible(GeneratedEvolution):
    """1D compressible flow. The distribution of initial states is our own: PDEBench's is not documented."""

    equation: Literal["compressible1d"]
    eta: Positive = Setting(description="shear and bulk viscosity over density (zeta = eta, as in PDEBench)")
    boundary: Literal["periodic", "outflow"] = Setting(
        default="periodic", description="of both ends; outflow: nothing changes across them"
    )
    variables: Variables = Setting(default="primitive", description="what the models see")
