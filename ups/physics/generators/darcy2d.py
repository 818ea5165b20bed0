"""2D Darcy flow: PDEBench's coefficients, and its stored frame of the relaxation."""

import torch
from torch import Tensor

from ups.config.data import GeneratedDarcy
from ups.physics.darcy import relax_darcy
from ups.physics.darcy_samples import darcy_coefficients, darcy_initial_states
from ups.physics.generators import Generator, Rows


def generator(data: GeneratedDarcy) -> Generator:
    """See `ups.physics.generators`."""
    drawn = {"seed": data.seed, "resolution": data.solver_resolution}

    def solve(rows: Rows, device: torch.device) -> Tensor:
        coefficient = torch.from_numpy(darcy_coefficients(rows, **drawn)).to(device)
        initial = torch.from_numpy(darcy_initial_states(rows, **drawn)).to(device)
        solution = relax_darcy(coefficient.float(), initial.float(), forcing=data.beta)
        return torch.stack([coefficient.float(), solution], dim=-1).unsqueeze(1)

    return Generator(solve, {"beta": data.beta}, "dirichlet")
