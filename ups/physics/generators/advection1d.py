"""1D advection: PDEBench's initial states, shifted exactly or by its upwind scheme."""

from functools import partial

from ups.config.data import GeneratedAdvection
from ups.physics.advection import solve_advection
from ups.physics.generators import Generator
from ups.physics.generators.sinusoids import from_sinusoids
from ups.physics.upwind_advection import solve_upwind_advection


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
