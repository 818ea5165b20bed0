"""Linear advection in one dimension, solved exactly: the initial state, moved.

    u_t + beta u_x = 0        x in [0, 1) periodic;        u(x, t) = u(x - beta t, 0)

Units: x in domain lengths, t in PDEBench seconds, beta in domain lengths per second.

The state between the N cells is the trigonometric polynomial through them. To move it by s domain lengths,
mode k = 0 .. N/2 of its Fourier transform is multiplied by exp(-2 pi i k s). The angle is reduced to one turn
in float64 before its exponential is taken, so that a whole period returns the state, however late. Every
frame is computed from frame 0: no error is carried from frame to frame, and no step has to be limited.

The highest mode of an even N, sin or cos of pi N x, is seen by the cells only as (-1)^i: they cannot tell
where it stands, so a moved wave is not determined. We take the polynomial of least oscillation, in which it
is a cosine that stands on the cells; moved by s, the cells read (-1)^i cos(pi N s). A shift by whole cells is
then exactly a rotation of the cells, a whole period the identity, and a real state stays real. The price: two
shifts that are not by whole cells compose to their sum in every mode but this one, which they lower.

Sources: Trefethen, Spectral Methods in MATLAB (2000), chapter 3, for the polynomial; the equation as
documented for PDEBench's 1D advection (Takamoto et al. 2022). PDEBench steps a limited upwind scheme, whose
error is most of the difference to its files: 9e-4 at beta = 0.1, 4e-3 at beta = 1 (trajectory relative L2).

Rejected:
(1) PDEBench's scheme: its numerical diffusion is no part of the equation, and it is several hundred steps.
(2) The shift in the dtype of the state: float32 adds 1e-7 a frame for a quarter less time; the result is
    rounded to float32 in either case.
(3) To drop the highest mode: the second frame would lack what the first one has, and whole cells would not
    be a rotation.
(4) To keep its complex phase and let the inverse transform drop the imaginary part, which gives the cosine,
    too: not every library promises to.
"""

import math

import torch
from torch import Tensor

from ups.errors import NotFiniteError

# Frames of one block of rows are transformed together; this bounds the complex work array (16 bytes a mode).
_BLOCK_VALUES = 4_194_304


def solve_advection(initial: Tensor, *, beta: float, frame_interval: float, frames: int) -> Tensor:
    """Trajectories of linear advection from `initial`; frame f is the state at t = f * frame_interval.

    Args:
        initial: states [n, x], float32 or float64, on any device; n may be 0, x at least 1. The shift is
            computed in float64 and rounded to this dtype.
        beta: velocity in domain lengths per unit of time, of either sign; 0 leaves the state at rest.
        frame_interval: time between frames, in the units of the equation.
        frames: number of frames, the initial one included.

    Returns:
        [n, frames, x], same dtype and device; frame 0 is `initial`, bit for bit. The mean of a row is that of
        `initial` to round-off. A row depends on its own initial state and on the arguments alone.

    Raises:
        ValueError: an argument is out of its range.
        NotFiniteError: `initial` is not finite; names the rows.
    """
    _check_arguments(initial, beta=beta, frame_interval=frame_interval, frames=frames)
    rows, cells = initial.shape
    trajectories = initial.new_empty(rows, frames, cells)
    trajectories[:, 0] = initial
    if rows == 0 or frames == 1:
        return trajectories

    multiplier = _shift_multiplier(
        beta * frame_interval * torch.arange(1, frames, dtype=torch.float64, device=initial.device), cells
    )
    for block in torch.arange(rows).split(max(1, _BLOCK_VALUES // (frames * cells))):
        begin, end = int(block[0]), int(block[-1]) + 1
        spectrum = torch.fft.rfft(initial[begin:end].double())
        trajectories[begin:end, 1:] = torch.fft.irfft(spectrum[:, None] * multiplier, cells)
    return trajectories


def _shift_multiplier(shifts: Tensor, cells: int) -> Tensor:
    """What moves the modes 0 .. cells // 2 by `shifts` [f] domain lengths, [f, modes] complex128."""
    mode = torch.arange(cells // 2 + 1, dtype=torch.float64, device=shifts.device)
    angle = -2.0 * math.pi * torch.remainder(torch.outer(shifts, mode), 1.0)
    multiplier = torch.polar(torch.ones_like(angle), angle)
    if cells % 2 == 0:
        multiplier[:, -1] = torch.cos(angle[:, -1])
    return multiplier


def _check_arguments(initial: Tensor, *, beta: float, frame_interval: float, frames: int) -> None:
    if initial.ndim != 2 or initial.shape[1] < 1:
        raise ValueError(f"initial must be [n, x] with at least 1 cell, got {tuple(initial.shape)}")
    if initial.dtype not in {torch.float32, torch.float64}:
        raise ValueError(f"initial must be float32 or float64, got {initial.dtype}")
    if not math.isfinite(beta):
        raise ValueError(f"beta must be finite, got {beta}")
    if not (math.isfinite(frame_interval) and frame_interval > 0):
        raise ValueError(f"frame_interval must be finite and positive, got {frame_interval}")
    if frames < 1:
        raise ValueError(f"frames must be at least 1, got {frames}")
    finite = torch.isfinite(initial).all(dim=1)
    if not bool(finite.all()):
        broken = torch.nonzero(~finite).flatten().tolist()
        raise NotFiniteError(
            f"the initial state of rows {broken[:8]} ({len(broken)} of {len(finite)}) is not finite",
            where="advection solver",
            fix="check the initial states",
        )
