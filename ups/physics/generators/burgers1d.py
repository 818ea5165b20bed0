"""1D Burgers: PDEBench's scheme and initial states."""

from functools import partial

from ups.config.data import GeneratedBurgers
from ups.physics.burgers import solve_burgers
from ups.physics.generators import Generator
from ups.physics.generators.sinusoids import from_sinusoids


def generator(data: GeneratedBurgers) -> Generator:
    """See `ups.physics.generators`."""
    return Generator(from_sinusoids(data, partial(solve_burgers, nu=data.nu)), {"nu": data.nu}, "periodic")
