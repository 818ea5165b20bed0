"""1D compressible flow, from initial states of our own: PDEBench's are not documented."""

import torch
from torch import Tensor

from ups.config.data import GeneratedCompressible
from ups.physics.compressible import solve_compressible
from ups.physics.compressible_samples import compressible_initial_states
from ups.physics.generators import Generator, Rows


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
