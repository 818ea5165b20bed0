"""Periodic problems of one field from PDEBench's initial states."""

from collections.abc import Callable

import torch
from torch import Tensor

from ups.physics.generators import Rows, Solve
from ups.physics.initial_conditions import sinusoidal_initial_conditions
from ups.problems.generated import FromSinusoids


def from_sinusoids(data: FromSinusoids, solver: Callable[..., Tensor]) -> Solve:
    """solver: initial states [n, points], frame_interval and frames to [n, t, points]."""

    def solve(rows: Rows, device: torch.device) -> Tensor:
        initial = sinusoidal_initial_conditions(rows, seed=data.seed, resolution=data.solver_resolution)
        state = torch.from_numpy(data.amplitude * initial + data.offset).float().to(device)
        times = {name: getattr(data, name) for name in ("frame_interval", "frames")}
        return solver(state, **times).unsqueeze(-1)

    return solve
