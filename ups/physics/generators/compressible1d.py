"""1D compressible flow, from initial states of our own: PDEBench's are not documented."""

import numpy as np
import torch
from torch import Tensor

from ups.physics.compressible import solve_compressible
from ups.physics.compressible_samples import compressible_initial_states
from ups.physics.generators import Comparison, Generator, GivenRows, Rows, explicit_steps
from ups.problems.equations.compressible1d import GeneratedCompressible
from ups.problems.ideal_gas import GAMMA


def generator(data: GeneratedCompressible) -> Generator:
    """See `ups.physics.generators`."""

    def solve(rows: Rows, device: torch.device) -> Tensor:
        initial = compressible_initial_states(
            rows, seed=data.seed, resolution=data.solver_resolution, boundary=data.boundary
        )
        return solve_compressible(
            torch.from_numpy(initial).float().to(device),
            eta=data.eta,
            zeta=data.eta,
            boundary=data.boundary,
            frame_interval=data.frame_interval,
            frames=data.frames,
        )

    parameters = {"eta": data.eta, "zeta": data.eta}
    return Generator(solve, parameters, data.boundary, "our own distribution")


def _own(given: GivenRows) -> Tensor:
    initial = torch.from_numpy(given.fields[:, 0])
    assert given.boundary != "dirichlet"  # the problem has no such boundary
    return solve_compressible(initial, **given.parameters, boundary=given.boundary, **given.frames)


def _steps(given: GivenRows) -> float:
    density, velocity, pressure = np.moveaxis(given.fields[:, 0].astype(np.float64), -1, 0)
    speed = float((np.abs(velocity) + np.sqrt(GAMMA * pressure / density)).max())
    return explicit_steps(given, speed=speed, viscosity=sum(given.parameters.values()))


# No genuine rows are known to hold a scheme of PDEBench's kind against.
COMPARISON = Comparison({"own scheme": _own}, _steps, genuine=False)
