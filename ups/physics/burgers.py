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

Scheme, in time. Strang splitting (Strang 1968) between diffusion, stepped exactly, and the fluxes, stepped
with the four-stage third-order method that preserves strong stability (Kraaijevanger 1991). The discrete
diffusion D is diagonal in the Fourier basis with eigenvalues

    lambda_k = -(nu/pi) (2 sin(pi k/N) / dx)^2,      k = 0 .. N/2

so that it sets no limit on the step. With E = exp(dt/2 D) and F = -(flux_{i+1/2} - flux_{i-1/2})/dx:

    u* = E u
    v1 = u* + dt/2 F(u*)     v2 = v1 + dt/2 F(v1)     v3 = 2/3 u* + 1/3 (v2 + dt/2 F(v2))
    v4 = v3 + dt/2 F(v3)
    u_next = E (u* + (v4 - u*))

The increment v4 - u* is a weighted sum of the four F, and what is carried from step to step is the spectrum of
u: it takes the transform of the increment, never that of a state, whose rounding would move the mean.

A forward Euler step with these slopes keeps to the range of the values around it up to a Courant number of 1/2,
the method up to 1, and E averages: the range of a row never grows. So the largest speed at a frame bounds all
speeds until the next, and each row goes from frame to frame in equal steps of its own, the fewest with
dt <= cfl dx / max|u|.

Sources: scheme in space as documented for PDEBench's 1D Burgers generator (Takamoto et al. 2022). PDEBench
steps the midpoint rule at a Courant number of 1/4 and diffusion with it, explicitly, with
dt <= dx^2/(8 nu/pi) besides; at nu = 0.01 and 1024 cells that is sixteen times as many steps or more, whose
float32 round-off moves the mean of a row by up to 7e-5.

Why a Courant number of 3/4 (measured at 1024 cells, t = 2, float64, 8 rows; trajectory relative L2): the
distance to 4096 cells is that of the midpoint rule at 1/4 or less (1.0e-3, 5.4e-5 and 3e-6 at nu = 0.001, 0.01
and 0.1). The distance to genuine rows at nu = 0.001, 1.2e-4, becomes 1.9e-4 at 1 and 4.5e-4 at 3/2: the splitting
is felt where the grid does not resolve a shock.

Rejected:
(1) Explicit diffusion: the step shrinks with dx^2, so a fine grid or a large nu costs 5 to 500 times more.
(2) The midpoint rule in the variable exp(-t D) u (Lawson 1967): two transforms for each evaluation of the flux,
    here half of one, and three times as many steps for the same error.
(3) Lawson's variable with the classical fourth-order method: as accurate at a Courant number of 1, as fast, but
    nothing bounds its overshoots.
(4) One step size for the whole batch: the result of a row would depend on its neighbours.
(5) A spectral scheme: more accurate, but then not the reference that PDEBench numbers are held against.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ups.errors import NotFiniteError

# A step is some eighty operations, each of which costs a few microseconds to launch: a block must be large enough
# to hide that. On a CPU this many cells still keep the work arrays in the third-level cache (measured at 1024
# cells: 16 rows a block take three times as long); on a GPU only memory bounds the block.
_BLOCK_CELLS_CPU = 131_072
_BLOCK_CELLS_GPU = 16_777_216


def solve_burgers(
    initial: Tensor,
    *,
    nu: float,
    frame_interval: float,
    frames: int,
    cfl: float = 0.75,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Trajectories of Burgers' equation from `initial`; frame f is the state at t = f * frame_interval.

    Args:
        initial: cell averages [n, x], float32 or float64, on any device; n may be 0, x at least 4. The
            solver works in this dtype: float64 conserves the mean to 1e-15, float32 to a few 1e-8.
        nu: PDEBench's viscosity number (the equation's viscosity is nu/pi); 0 gives the inviscid equation.
        frame_interval: time between frames, in the units of the equation.
        frames: number of frames, the initial one included.
        cfl: advective Courant number, at most 1 (the bound of strong stability with limited slopes).
        progress: called as progress(done, total) in units of one frame of one row.

    Returns:
        [n, frames, x], same dtype and device; frame 0 is `initial`, bit for bit. A row depends on its own
        initial state and on the arguments, not on the other rows (to round-off: the order of a sum inside
        the Fourier transform may differ between batch shapes).

    On a CPU, set torch to one thread and solve as many parts of the rows side by side, in threads or processes,
    as there are cores: operations are short, and threads inside them wait for one another at each (measured: 15
    times slower on cores shared with other work).

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
    _check_finite(initial, torch.arange(rows, device=initial.device), frame=0)

    # Blocks of similar speed: the last steps of a block would otherwise be taken by few rows, or one.
    order = torch.argsort(initial.abs().amax(dim=1)).cpu()
    block_cells = _BLOCK_CELLS_CPU if initial.device.type == "cpu" else _BLOCK_CELLS_GPU
    done, total = 0, rows * (frames - 1)
    for block in order.split(max(1, block_cells // cells)):
        stepper = _Stepper(initial, block.to(initial.device), nu=nu, cfl=cfl)
        for frame in range(1, frames):
            state = stepper.advance(frame_interval)
            _check_finite(state, stepper.rows, frame=frame)
            trajectories[stepper.rows, frame] = state
            if progress is not None:
                done += len(block)
                progress(done, total)
    return trajectories


class _Stepper:
    """One block of rows and its work arrays, which are allocated once: at 1024 cells an allocation per operation
    costs as much as the arithmetic.

    `rows` tells which row of the caller's stands where: at each frame the rows are sorted by the number of steps
    to the next one, so that those still under way are always the first ones and none is computed in vain.
    """

    def __init__(self, initial: Tensor, rows: Tensor, *, nu: float, cfl: float) -> None:
        cells = initial.shape[1]
        self.cells = cells
        self.cell_width = 1.0 / cells
        self.courant_length = cfl * self.cell_width

        wavenumber = torch.arange(cells // 2 + 1, dtype=torch.float64)
        eigenvalue = -(nu / math.pi) * (2.0 * torch.sin(math.pi * wavenumber / cells) / self.cell_width) ** 2
        # Twice each: a complex number times a real one is far slower than its two parts times two numbers.
        self.eigenvalue = eigenvalue.repeat_interleave(2).to(initial)

        self.rows = rows
        self.state = initial[rows]
        self.spectrum = torch.fft.rfft(self.state)
        self.fluxes = _Fluxes(self.state)

    def advance(self, duration: float) -> Tensor:
        """Advance every row by `duration`; returns the states [rows, x] of the rows `self.rows`, in that order."""
        least = duration * self.state.abs().amax(dim=1).double() / self.courant_length
        steps, order = least.ceil_().clamp_(min=1.0).sort(descending=True, stable=True)
        self.rows = self.rows[order]
        self.spectrum = self.spectrum[order]
        step = (duration / steps).to(self.state)[:, None]
        half_decay = torch.exp(self.eigenvalue * (0.5 * step))

        # The rows with the fewest steps stand last: they arrive, and the others go on without them.
        arrivals = torch.stack(torch.unique_consecutive(steps.flip(0).long(), return_counts=True), dim=1)
        taken, under_way = 0, len(steps)
        for arrival, number in arrivals.tolist():
            first = slice(under_way)
            self._take_steps(
                arrival - taken, self.state[first], self.spectrum[first], step[first], half_decay[first]
            )
            taken, under_way = arrival, under_way - number
        torch.fft.irfft(self.spectrum, self.cells, out=self.state)
        return self.state

    def _take_steps(
        self, count: int, state: Tensor, spectrum: Tensor, step: Tensor, half_decay: Tensor
    ) -> None:
        """Advance `spectrum` by `count` steps; `state` is overwritten."""
        self.fluxes.narrow(len(state))
        parts = torch.view_as_real(spectrum).flatten(1)
        ratio = step / self.cell_width
        for _ in range(count):
            parts *= half_decay
            torch.fft.irfft(spectrum, self.cells, out=state)
            spectrum += torch.fft.rfft(self.fluxes.increment(state, ratio))
            parts *= half_decay


class _Fluxes:
    """What the fluxes do to the first rows of a block in one step, and the work arrays for it.

    The views into the arrays are made when the number of rows changes: made in each step, they would take as
    long as the arithmetic on them.
    """

    def __init__(self, like: Tensor) -> None:
        rows, cells = like.shape
        self.arrays = [like.new_empty(rows, cells + surplus) for surplus in (4, 3, 2, 2, 2, 1, 1, 0, 0)]
        self.narrow(rows)

    def narrow(self, rows: int) -> None:
        """Work on the first `rows` rows from now on."""
        views = [array[:rows] for array in self.arrays]
        padded, difference, self.lowest, self.highest, half_slope, self.left, self.minus_right = views[:7]
        self.change, self.total = views[7:]
        self.stage = padded[:, 2:-2]
        self.ghosts = padded[:, :2], padded[:, -2:]
        self.images = padded[:, -4:-2], padded[:, 2:4]
        self.cells = padded[:, :-1], padded[:, 1:]
        self.neighbours = padded[:, :-2], padded[:, 2:]
        self.beside_face = padded[:, 1:-2], padded[:, 2:-1]
        self.difference, self.slopes = difference, (difference[:, :-1], difference[:, 1:])
        self.half_slope, self.half_slopes = half_slope, (half_slope[:, :-1], half_slope[:, 1:])
        self.faces = self.left[:, :-1], self.left[:, 1:]

    def increment(self, state: Tensor, ratio: Tensor) -> Tensor:
        """v4 - u* for u* = `state` [rows, x] and dt/dx = `ratio` [rows, 1]; overwritten by the next call.

        With q = -dt/(4 dx) times twice the difference of the fluxes, dt/2 F of the file's docstring, the stages
        are v2 = u* + q1 + q2, v3 = u* + (q1 + q2 + q3)/3 and v4 - u* = (q1 + q2 + q3)/3 + q4.
        """
        quarter, total, stage = -0.25 * ratio, self.total, self.stage
        stage.copy_(state)
        total.copy_(self._squares_change())
        torch.addcmul(state, total, quarter, out=stage)
        total += self._squares_change()
        torch.addcmul(state, total, quarter, out=stage)
        total += self._squares_change()
        total *= 1.0 / 3.0
        torch.addcmul(state, total, quarter, out=stage)
        total += self._squares_change()
        total *= quarter
        return total

    def _squares_change(self) -> Tensor:
        """Twice the difference of the fluxes at the two faces of each cell of `stage`, [rows, x]; overwritten.

        The slope without branches: minmod(2a, 2b, (a + b)/2)/2 is (a + b)/4 clamped between min(max(a, b), 0)
        and max(min(a, b), 0), one of which is zero, and both are where a and b differ in sign.
        """
        self.ghosts[0].copy_(self.images[0])
        self.ghosts[1].copy_(self.images[1])
        half_slope = self.half_slope
        torch.sub(self.cells[1], self.cells[0], out=self.difference)
        lowest = torch.maximum(*self.slopes, out=self.lowest).clamp_(max=0.0)
        highest = torch.minimum(*self.slopes, out=self.highest).clamp_(min=0.0)
        torch.sub(self.neighbours[1], self.neighbours[0], out=half_slope)
        half_slope *= 0.25
        torch.clamp(half_slope, lowest, highest, out=half_slope)

        torch.add(self.beside_face[0], self.half_slopes[0], out=self.left)
        torch.sub(self.half_slopes[1], self.beside_face[1], out=self.minus_right)
        squares = torch.maximum(self.left, self.minus_right, out=self.left)
        squares *= squares
        return torch.sub(self.faces[1], self.faces[0], out=self.change)


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
    if not 0 < cfl <= 1.0:
        raise ValueError(f"cfl must be in (0, 1], got {cfl}")


def _check_finite(state: Tensor, rows: Tensor, *, frame: int) -> None:
    if bool(torch.isfinite(state).all()):
        return
    broken = rows[~torch.isfinite(state).all(dim=1)].sort().values.tolist()
    raise NotFiniteError(
        f"the state of rows {broken[:8]} ({len(broken)} of {len(rows)}) is not finite at frame {frame}",
        where="Burgers solver",
        fix="check the initial states" if frame == 0 else "lower cfl",
    )
