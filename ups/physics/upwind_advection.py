"""Linear advection the way PDEBench's files were made: the limited upwind scheme, with its diffusion.

    u_t + beta u_x = 0        x in [0, 1) periodic, beta > 0

The scheme rounds off kinks and fronts: on the rows whose initial state is an absolute value or a window it is
9e-3 (beta 0.1) to 3e-2 (beta 1) away from the exact shift of `ups.physics.advection`, more than most surrogates.
Data "as in the file" need it; data of the equation do not.

Units and grid as in `ups.physics.burgers`. A face takes the value of the cell upwind of it, linearly
reconstructed with the monotonised central slope (van Leer 1977),

    slope_i = minmod(2a, 2b, (a + b)/2),  a = u_i - u_{i-1},  b = u_{i+1} - u_i,     flux = beta (u_i + slope_i/2)

and time is stepped by midpoint predictor-corrector with dt = min(0.4 dx/beta, time to the next frame).

Source: scheme and step rule as documented for PDEBench's 1D advection generator (Takamoto et al. 2022).
"""

import math

import torch
from torch import Tensor

from ups.errors import NotFiniteError

CFL = 0.4


def solve_upwind_advection(initial: Tensor, *, beta: float, frame_interval: float, frames: int) -> Tensor:
    """Trajectories of linear advection from `initial` with PDEBench's scheme.

    Args:
        initial: cell averages [n, x], float32 or float64, x at least 4.
        beta: velocity in domain lengths per unit of time, above 0.
        frame_interval: time between frames.
        frames: number of frames, the initial one included.

    Returns:
        [n, frames, x], same dtype and device; frame 0 is `initial`, bit for bit. Rows are independent of each
        other, and the mean of a row is kept to round-off.

    Raises:
        ValueError: an argument is out of its range.
        NotFiniteError: `initial` is not finite.
    """
    if initial.ndim != 2 or initial.shape[1] < 4:
        raise ValueError(f"initial must be [n, x] with at least 4 cells, got {tuple(initial.shape)}")
    if not (math.isfinite(beta) and beta > 0):
        raise ValueError(f"beta must be finite and above 0, got {beta}")
    if not (math.isfinite(frame_interval) and frame_interval > 0) or frames < 1:
        raise ValueError(f"frame_interval {frame_interval} and frames {frames} must be positive")
    if not bool(torch.isfinite(initial).all()):
        raise NotFiniteError("the initial state is not finite", where="advection solver")
    trajectories = initial.new_empty(len(initial), frames, initial.shape[1])
    trajectories[:, 0] = initial
    largest = CFL / (initial.shape[1] * beta)
    whole_steps = math.floor(frame_interval / largest * (1 + 1e-12))
    remainder = frame_interval - whole_steps * largest
    steps = [largest] * whole_steps + ([remainder] if remainder > 1e-12 * frame_interval else [])
    state = initial
    for frame in range(1, frames):
        for step in steps:
            courant = step * beta * initial.shape[1]
            midpoint = _advanced(state, state, courant / 2)
            state = _advanced(state, midpoint, courant)
        trajectories[:, frame] = state
    return trajectories


def _advanced(state: Tensor, source: Tensor, courant: float) -> Tensor:
    """`state` moved by the fluxes of `source`; courant: beta dt / dx."""
    rise = source - source.roll(1, dims=1)
    fall = rise.roll(-1, dims=1)
    lowest = torch.minimum(rise, fall)
    highest = torch.maximum(rise, fall)
    # minmod(2a, 2b, (a + b)/2): the middle value bounded by twice the smaller slope, 0 where signs differ.
    bound = 2.0 * (lowest.clamp_min(0.0) + highest.clamp_max(0.0))
    central = 0.5 * (rise + fall)
    slope = torch.where(
        bound >= 0, torch.minimum(central.clamp_min(0.0), bound), torch.maximum(central, bound)
    )
    slope = torch.where(bound == 0, 0.0, slope)
    face = source + 0.5 * slope
    return state - courant * (face - face.roll(1, dims=1))
