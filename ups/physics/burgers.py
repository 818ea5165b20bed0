"""Viscous Burgers equation in one dimension, the way PDEBench states and discretises it.

    u_t + (u^2 / 2)_x = (nu / pi) u_xx        x in [0, 1) periodic, no forcing

Units: x in domain lengths, t in PDEBench seconds, u in lengths per second. `nu` is the number in the
file's name and attribute; the viscosity that acts is nu/pi. (PDEBench data made before October 2023 had
neither the factor 1/2 nor this domain; they belong to another equation.)

Grid: N equal cells, u_i is the average over cell i, whose centre is x_i = (i + 1/2)/N, dx = 1/N.

Scheme, in space. A face takes one value from either side, linearly reconstructed with the monotonised
central slope (van Leer 1977): with a = u_i - u_{i-1} and b = u_{i+1} - u_i,

    slope_i = minmod(2a, 2b, (a + b)/2),     left = u_i + slope_i/2,     right = u_{i+1} - slope_{i+1}/2

and the upwind flux 1/2 [left^2/2 + right^2/2 - |left + right| (right - left)/2]. That flux is left^2/2
where left + right > 0 and right^2/2 elsewhere, hence simply max(left, -right)^2 / 2: one comparison, no
branch. The discrete Laplacian is (u_{i-1} - 2 u_i + u_{i+1})/dx^2.

Scheme, in time. Midpoint predictor-corrector (half a step, then a whole step with the flux of the
midpoint) in the variable exp(-t D) u, where D is the discrete diffusion: Lawson's integrating factor
(Lawson 1967). D is diagonal in the Fourier basis with eigenvalues

    lambda_k = -(nu/pi) (2 sin(pi k/N) / dx)^2,      k = 0 .. N/2

so that diffusion is stepped exactly and sets no limit on the step. With E = exp(dt/2 D) and
F = -(flux_{i+1/2} - flux_{i-1/2})/dx:

    u_half = E (u + dt/2 F(u)),     u_next = E (E u + dt F(u_half))

Each row takes its own step, dt = min(cfl dx / max|u|, time to the next frame), recomputed every step.

Sources: scheme and step rule as documented for PDEBench's 1D Burgers generator (Takamoto et al. 2022).
PDEBench steps diffusion explicitly, with dt <= cfl dx^2/(2 nu/pi) besides; at nu = 0.01 and 1024 cells
that is five times as many steps or more, whose float32 round-off moves the mean of a row by up to 7e-5.

Rejected:
(1) Explicit diffusion: the step shrinks with dx^2, so a fine grid or a large nu costs 5 to 500 times more.
(2) Strang splitting with merged half steps: two transforms a step in place of four and 10 % faster (measured),
    but every step rounds the state through a transform: in float32 the mean drifts 20 times as much.
(3) One step size for the whole batch: the result of a row would depend on its neighbours.
(4) A spectral scheme: more accurate, but then not the reference that PDEBench numbers are held against.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ups.errors import NotFiniteError

# A step is bound by memory traffic. On a CPU a block of this many cells keeps all work arrays in the
# second-level cache and still amortises the cost of launching about forty operations a step; on a
# GPU launches dominate and only memory bounds the block.
_BLOCK_CELLS_CPU = 65_536
_BLOCK_CELLS_GPU = 16_777_216


def solve_burgers(
    initial: Tensor,
    *,
    nu: float,
    frame_interval: float,
    frames: int,
    cfl: float = 0.25,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Trajectories of Burgers' equation from `initial`; frame f is the state at t = f * frame_interval.

    Args:
        initial: cell averages [n, x], float32 or float64, on any device; n may be 0, x at least 4. The
            solver works in this dtype: float64 conserves the mean to 1e-15, float32 to a few 1e-8.
        nu: PDEBench's viscosity number (the equation's viscosity is nu/pi); 0 gives the inviscid equation.
        frame_interval: time between frames, in the units of the equation.
        frames: number of frames, the initial one included.
        cfl: advective Courant number, at most 1/2 (the midpoint scheme's bound with limited slopes).
        progress: called as progress(done, total) in units of one frame of one row.

    Returns:
        [n, frames, x], same dtype and device; frame 0 is `initial`, bit for bit. A row depends on its own
        initial state and on the arguments, not on the other rows (to round-off: the order of a sum inside
        the Fourier transform may differ between batch shapes).

    On a CPU, use one thread per process and as many processes as cores: operations are short, and threads that
    share cores with other work wait for one another at each (measured: 15 times slower).

    Raises:
        ValueError: an argument is out of its range.
        NotFiniteError: `initial`, or the solution, is not finite; names the rows.
    """
    _check_arguments(initial, nu=nu, frame_interval=frame_interval, frames=frames, cfl=cfl)
    rows, cells = initial.shape
    trajectories = initial.new_empty(rows, frames, cells)
    trajectories[:, 0] = initial
    if rows == 0 or frames == 1:
        return trajectories
    _check_finite(initial, torch.arange(rows), frame=0)

    # Within a block, rows wait for the one that needs most steps: blocks of similar speed wait less.
    order = torch.argsort(initial.abs().amax(dim=1)).cpu()
    block_cells = _BLOCK_CELLS_CPU if initial.device.type == "cpu" else _BLOCK_CELLS_GPU
    done, total = 0, rows * (frames - 1)
    for block in order.split(max(1, block_cells // cells)):
        stepper = _Stepper(initial[block.to(initial.device)], nu=nu, cfl=cfl)
        for frame in range(1, frames):
            state = stepper.advance(frame_interval)
            _check_finite(state, block, frame=frame)
            trajectories[block.to(initial.device), frame] = state
            if progress is not None:
                done += len(block)
                progress(done, total)
    return trajectories


class _Stepper:
    """One block of rows, its work arrays, and the step. The arrays are allocated once: at 1024 cells an
    allocation per operation costs as much as the arithmetic.
    """

    def __init__(self, initial: Tensor, *, nu: float, cfl: float) -> None:
        rows, cells = initial.shape
        self.cells = cells
        self.cell_width = 1.0 / cells
        self.courant_length = cfl * self.cell_width

        wavenumber = torch.arange(cells // 2 + 1, dtype=torch.float64)
        eigenvalue = -(nu / math.pi) * (2.0 * torch.sin(math.pi * wavenumber / cells) / self.cell_width) ** 2
        self.eigenvalue = eigenvalue.to(initial)

        def real(width: int) -> Tensor:
            return initial.new_empty(rows, width)

        self.state = initial.clone()
        # The spectrum is the true state: a row that waits (dt = 0) multiplies it by exactly 1, and its
        # mean, mode 0, never passes through a rounded transform.
        self.spectrum = torch.fft.rfft(initial)
        self.increment = torch.empty_like(self.spectrum)
        self.decay = real(cells // 2 + 1)
        self.midpoint = real(cells)
        self.scratch = real(cells)
        self.peak = real(1)
        self.limit = real(1)
        self.step = real(1)
        self.remaining = real(1)
        self.quiet = torch.finfo(initial.dtype).tiny

        self.padded = real(cells + 4)
        self.difference = real(cells + 3)
        self.rise = real(cells + 3)
        self.lowest = real(cells + 2)
        self.highest = real(cells + 2)
        self.half_slope = real(cells + 2)
        self.left = real(cells + 1)
        self.right = real(cells + 1)

    def advance(self, duration: float) -> Tensor:
        """Advance every row by `duration`; the returned [rows, x] is overwritten by the next call."""
        self.remaining.fill_(duration)
        unchecked = 0
        while True:
            self._limit_step()
            if unchecked == 0:
                # Asking a GPU whether all rows arrived stalls it. Ask after half of the steps still
                # expected: a handful of questions per frame, and no step taken in vain.
                expected = float((self.remaining / self.limit).amax())
                if not expected > 0:  # also ends on NaN, which the caller reports
                    return self.state
                unchecked = math.ceil(expected / 2) if math.isfinite(expected) else 1
            unchecked -= 1
            torch.minimum(self.limit, self.remaining, out=self.step)
            self._take_step()
            self.remaining -= self.step  # exactly zero for a row that has arrived, which then waits

    def _limit_step(self) -> None:
        torch.abs(self.state, out=self.scratch)
        torch.amax(self.scratch, dim=1, keepdim=True, out=self.peak)
        self.peak.clamp_(min=self.quiet)  # a row at rest takes one step to the next frame
        torch.reciprocal(self.peak, out=self.limit)
        self.limit *= self.courant_length

    def _take_step(self) -> None:
        torch.mul(self.eigenvalue, 0.5 * self.step, out=self.decay)
        self.decay.exp_()

        # u_half = E (u + dt/2 F(u)), where F = -(squares' difference)/(2 dx)
        squares_change = self._squares_change(self.state)
        torch.addcmul(
            self.state, squares_change, self.step * (0.25 / self.cell_width), value=-1, out=self.midpoint
        )
        torch.fft.rfft(self.midpoint, out=self.increment)
        self.increment *= self.decay
        torch.fft.irfft(self.increment, self.cells, out=self.midpoint)

        # u_next = E (E u + dt F(u_half))
        squares_change = self._squares_change(self.midpoint)
        squares_change *= self.step * (0.5 / self.cell_width)
        torch.fft.rfft(squares_change, out=self.increment)
        self.spectrum *= self.decay
        self.spectrum -= self.increment
        self.spectrum *= self.decay
        torch.fft.irfft(self.spectrum, self.cells, out=self.state)

    def _squares_change(self, state: Tensor) -> Tensor:
        """Twice the difference of the fluxes at the two faces of each cell, [rows, x]; in `scratch`.

        The slope without branches: minmod(2a, 2b, (a + b)/2)/2 is (a + b)/4 clamped between
        max(min(a, 0), min(b, 0)) and min(max(a, 0), max(b, 0)), one of which is zero, and both are
        where a and b differ in sign.
        """
        padded, half_slope = self.padded, self.half_slope
        padded[:, 2:-2] = state
        padded[:, :2] = state[:, -2:]
        padded[:, -2:] = state[:, :2]

        torch.sub(padded[:, 1:], padded[:, :-1], out=self.difference)
        torch.clamp(self.difference, min=0.0, out=self.rise)
        fall = self.difference.clamp_(max=0.0)
        torch.minimum(self.rise[:, 1:], self.rise[:, :-1], out=self.highest)
        torch.maximum(fall[:, 1:], fall[:, :-1], out=self.lowest)
        torch.sub(padded[:, 2:], padded[:, :-2], out=half_slope)
        half_slope *= 0.25
        torch.clamp(half_slope, self.lowest, self.highest, out=half_slope)

        torch.add(padded[:, 1:-2], half_slope[:, :-1], out=self.left)
        torch.sub(half_slope[:, 1:], padded[:, 2:-1], out=self.right)  # minus the right value
        squares = torch.maximum(self.left, self.right, out=self.left)
        squares *= squares
        return torch.sub(squares[:, 1:], squares[:, :-1], out=self.scratch)


def _check_arguments(initial: Tensor, *, nu: float, frame_interval: float, frames: int, cfl: float) -> None:
    if initial.ndim != 2 or initial.shape[1] < 4:
        raise ValueError(f"initial must be [n, x] with at least 4 cells, got {tuple(initial.shape)}")
    if initial.dtype not in {torch.float32, torch.float64}:
        raise ValueError(f"initial must be float32 or float64, got {initial.dtype}")
    if not (math.isfinite(nu) and nu >= 0):
        raise ValueError(f"nu must be finite and not negative, got {nu}")
    if not (math.isfinite(frame_interval) and frame_interval > 0):
        raise ValueError(f"frame_interval must be finite and positive, got {frame_interval}")
    if frames < 1:
        raise ValueError(f"frames must be at least 1, got {frames}")
    if not 0 < cfl <= 0.5:
        raise ValueError(f"cfl must be in (0, 0.5], got {cfl}")


def _check_finite(state: Tensor, rows: Tensor, *, frame: int) -> None:
    if bool(torch.isfinite(state).all()):
        return
    broken = rows[~torch.isfinite(state).all(dim=1).cpu()].tolist()
    raise NotFiniteError(
        f"the state of rows {broken[:8]} ({len(broken)} of {len(rows)}) is not finite at frame {frame}",
        where="Burgers solver",
        fix="check the initial states" if frame == 0 else "lower cfl",
    )
