"""2D Darcy flow: PDEBench's coefficients, and its stored frame of the relaxation."""

import torch
from torch import Tensor

from ups.physics.darcy import relax_darcy, solve_darcy_steady
from ups.physics.darcy_samples import darcy_coefficients, darcy_initial_states
from ups.physics.generators import Comparison, Generator, GivenRows, Rows
from ups.problems.equations.darcy2d import GeneratedDarcy


def generator(data: GeneratedDarcy) -> Generator:
    """See `ups.physics.generators`."""
    drawn = {"seed": data.seed, "resolution": data.solver_resolution}

    def solve(rows: Rows, device: torch.device) -> Tensor:
        coefficient = torch.from_numpy(darcy_coefficients(rows, **drawn)).to(device)
        initial = torch.from_numpy(darcy_initial_states(rows, **drawn)).to(device)
        solution = relax_darcy(coefficient.float(), initial.float(), forcing=data.beta)
        return torch.stack([coefficient.float(), solution], dim=-1).unsqueeze(1)

    return Generator(solve, {"beta": data.beta}, "dirichlet")


def _steady(given: GivenRows) -> Tensor:
    """The stored solution is that at t = 1.75 of a relaxation; this is its end."""
    coefficient = torch.from_numpy(given.fields[:, 1, ..., 0])
    solved = torch.from_numpy(given.fields.copy())
    solved[:, 1, ..., 1] = solve_darcy_steady(coefficient, forcing=given.parameters["beta"])
    return solved


COMPARISON = Comparison({"steady state": _steady}, steps=lambda given: 0.0)
