"""1D Burgers: PDEBench's scheme and initial states."""

from functools import partial

import numpy as np
import torch
from torch import Tensor

from ups.physics.burgers import solve_burgers
from ups.physics.generators import Comparison, Generator, GivenRows, explicit_steps
from ups.physics.generators.sinusoids import from_sinusoids
from ups.problems.equations.burgers1d import GeneratedBurgers


def generator(data: GeneratedBurgers) -> Generator:
    """See `ups.physics.generators`."""
    return Generator(from_sinusoids(data, partial(solve_burgers, nu=data.nu)), {"nu": data.nu}, "periodic")


def _pdebench(given: GivenRows) -> Tensor:
    initial = torch.from_numpy(given.fields[:, 0, :, 0])
    return solve_burgers(initial, **given.parameters, **given.frames)[..., None]


def _steps(given: GivenRows) -> float:
    # Diffusion is solved without limit on the step.
    return explicit_steps(given, speed=float(np.abs(given.fields[:, 0]).max()), viscosity=0.0)


COMPARISON = Comparison({"PDEBench's scheme": _pdebench}, _steps)
