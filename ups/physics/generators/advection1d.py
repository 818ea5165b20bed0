"""1D advection: PDEBench's initial states, shifted exactly or by its upwind scheme."""

from functools import partial

import torch
from torch import Tensor

from ups.physics.advection import solve_advection
from ups.physics.generators import Comparison, Generator, GivenRows
from ups.physics.generators.sinusoids import from_sinusoids
from ups.physics.upwind_advection import CFL, solve_upwind_advection
from ups.problems.equations.advection1d import GeneratedAdvection


def generator(data: GeneratedAdvection) -> Generator:
    """See `ups.physics.generators`."""
    exact = data.scheme == "exact"
    solver = solve_advection if exact else solve_upwind_advection
    return Generator(
        from_sinusoids(data, partial(solver, beta=data.beta)),
        {"beta": data.beta},
        "periodic",
        f"PDEBench distribution{', exact' if exact else ' and scheme'}",
    )


def _upwind(given: GivenRows) -> Tensor:
    initial = torch.from_numpy(given.fields[:, 0, :, 0]).double()
    return solve_upwind_advection(initial, **given.parameters, **given.frames)[..., None]


def _shifted(given: GivenRows) -> Tensor:
    initial = torch.from_numpy(given.fields[:, 0, :, 0])
    return solve_advection(initial, **given.parameters, **given.frames)[..., None]


def _steps(given: GivenRows) -> float:
    return given.duration * given.parameters["beta"] / given.cell / CFL


COMPARISON = Comparison({"PDEBench's upwind scheme": _upwind, "exact shift": _shifted}, _steps)
