"""Compressible viscous flow of an ideal gas in one dimension, in the equations and the scheme of PDEBench.

    rho_t + (rho v)_x             = 0
    (rho v)_t + (rho v^2 + p)_x   = (mu v_x)_x            e = p/(gamma - 1) + rho v^2/2
    e_t + ((e + p) v)_x           = (v mu v_x)_x          mu = (4/3 eta + zeta) rho,   gamma = 5/3

on x in [-1, 1], periodic or with outflow ('trans': the gradient vanishes at either end). `eta` and `zeta`, the
shear and the bulk viscosity, are *per density*: they are multiplied by the local density. No heat conduction.

Units: PDEBench's, without dimension. A primitive state is (rho, v, p), a conserved one (rho, rho v, e), on the
last axis in this order. Grid: N equal cells; values are cell averages, and the primitive state of a cell is that
of its conserved averages.

Scheme, in space. The primitive variables are reconstructed linearly with the monotonised central slope (van
Leer 1977, as in `ups.physics.burgers`); the flux between the two values of a face is HLLC (Toro, Spruce and
Speares 1994) with the wave speeds of Einfeldt (1988), so a contact at rest stays as it is. In time: Heun's rule,
which preserves strong stability (Shu and Osher 1988), dt = min(cfl dx / max(|v| + c), time to the next frame), for
each row on its own and recomputed every step. Wherever the pressure falls below 1e-4 it is set to 1e-4, the one
place where energy is not conserved.

Scheme, viscosity. It leaves the density alone, so it is linear in v. Wherever a step as long as the frame
interval is explicitly stable by a factor of fifty ((4/3 eta + zeta) frame_interval / dx^2 <= 1/100, a matter of
viscosity and grid; eta = 1e-8 is such) it is part of the flux. Elsewhere it is split off (Strang 1968) and implicit, by the
two-stage, second-order, L-stable rule of Alexander (1977). Both change momentum and energy by differences of
face values, which keeps their totals; and as that rule is algebraically stable (Burrage and Butcher 1979), the
energy that the flow loses is found as heat in the same cell: viscosity never lowers a pressure. The
tridiagonal systems are solved by cyclic reduction of all rows and cells at once (Hockney 1965), in terms of row sums:
all terms are positive and nothing cancels.

Sources: equations, domain, gamma, limiter, HLLC and pressure floor as documented for PDEBench's 1D compressible
flow (Takamoto et al. 2022); HLLC as in Toro, Riemann Solvers (2009), chapter 10. PDEBench's own wave speeds and
time step are not documented here and no genuine rows are at hand: nothing is claimed about agreement with its
files to more than the order of the scheme.

Rejected:
(1) Explicit viscosity throughout: at eta = 0.1 and 1024 cells it takes thirty times as many steps.
(2) Crank and Nicolson: not L-stable; there a jump of the velocity rings for tens of steps.
(3) The Thomas algorithm over x: two thousand small operations in a row where cyclic reduction needs two hundred.
(4) One step size for all rows: the result of a row would depend on its neighbours.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ups.errors import NotFiniteError, StageError
from ups.problems.ideal_gas import GAMMA, to_conserved, to_primitive

Boundary = Literal["periodic", "outflow"]

PRESSURE_FLOOR = 1e-4

# Blocks bound the work arrays, about forty of their size. On a CPU a block must also be large enough to hide what
# it costs to launch an operation, and small enough for the cache.
_BLOCK_CELLS_CPU = 32_768
_BLOCK_CELLS_GPU = 4_194_304

# Stiff is viscosity that a step of one frame interval would not carry explicitly with this much to spare.
_EXPLICIT_DIFFUSION_NUMBER = 0.01

# Alexander's rule: v1 = v0 + g h L v1, v2 = v0 + (1 - g) h L v1 + g h L v2.
_ALEXANDER = 1.0 - math.sqrt(0.5)


class PositivityError(StageError):
    """Density or initial pressure is not positive. Repeating the same solve gives the same result."""


def solve_compressible(
    initial: Tensor,
    *,
    eta: float,
    zeta: float,
    boundary: Boundary,
    frame_interval: float,
    frames: int,
    gamma: float = GAMMA,
    domain_length: float = 2.0,
    cfl: float = 0.3,
) -> Tensor:
    """Trajectories of compressible flow from `initial`; frame f is the state at t = f * frame_interval.

    Args:
        initial: primitive states (density, velocity, pressure) [n, x, 3], float32 or float64, on any device;
            n may be 0, x at least 4. The solver works in this dtype.
        eta, zeta: shear and bulk viscosity per density (PDEBench's numbers), not negative; 0 and 0: Euler.
        boundary: "periodic" or "outflow".
        frame_interval: time between frames.
        frames: number of frames, the initial one included.
        gamma: ratio of specific heats.
        domain_length: length of the domain.
        cfl: Courant number of the fastest wave, at most 1/2 (strong stability with limited slopes).

    Returns:
        Primitive states [n, frames, x, 3], same dtype and device; frame 0 is `initial`, bit for bit. A row depends
        on its own initial state and on the arguments alone, bit for bit.

    Raises:
        ValueError: an argument is out of its range.
        NotFiniteError: `initial`, or the solution, is not finite; names the rows.
        PositivityError: the density is not positive somewhere, or the initial pressure; names the rows. A pressure
            that falls below 1e-4 later on is set to 1e-4 instead.
    """
    _check_arguments(initial, eta, zeta, boundary, frame_interval, frames, gamma, domain_length, cfl)
    rows, cells, _ = initial.shape
    trajectories = initial.new_empty(rows, frames, cells, 3)
    trajectories[:, 0] = initial
    if rows == 0 or frames == 1:
        return trajectories
    _check_states(initial, torch.arange(rows, device=initial.device), frame=0)

    viscosity = 4.0 / 3.0 * eta + zeta
    cell_width = domain_length / cells
    scheme = _Scheme(
        viscosity=viscosity,
        implicit=viscosity * frame_interval / cell_width**2 > _EXPLICIT_DIFFUSION_NUMBER,
        periodic=boundary == "periodic",
        cell_width=cell_width,
        gamma=gamma,
        cfl=cfl,
    )
    # Within a block, rows wait for the one that needs most steps: blocks of similar speed wait less.
    density, velocity, pressure = initial.unbind(-1)
    fastest = (velocity.abs() + (gamma * pressure / density).sqrt()).amax(dim=1)
    block_cells = _BLOCK_CELLS_CPU if initial.device.type == "cpu" else _BLOCK_CELLS_GPU
    for block in torch.argsort(fastest).split(max(1, block_cells // cells)):
        state = to_conserved(initial[block], gamma).movedim(-1, 0).contiguous()
        for frame in range(1, frames):
            state = scheme.advance(state, frame_interval)
            primitive = to_primitive(state.movedim(0, -1), gamma)
            _check_states(primitive, block, frame=frame)
            trajectories[block, frame] = primitive
    return trajectories


@dataclass(frozen=True)
class _Scheme:
    """The discrete equations. States are conserved, [3, n, x], so that each variable is contiguous.

    Products and sums stand in operations of their own: fused ones may round differently in the last cells
    of an array, and a row would depend on its batch.
    """

    viscosity: float
    """(4/3 eta + zeta): mu over density."""
    implicit: bool
    periodic: bool
    cell_width: float
    gamma: float
    cfl: float

    def advance(self, state: Tensor, duration: float) -> Tensor:
        """Every row by `duration`. A row that has arrived waits with steps of zero, which change no bit of it."""
        remaining = torch.full_like(state[0, :, :1], duration)
        previous = torch.zeros_like(remaining)
        while True:
            step = torch.minimum(self._longest_step(state), remaining)
            if self.implicit:
                # The second half of the step before and the first half of this one.
                state = self._diffuse(state, 0.5 * (previous + step))
            if not bool((step > 0).any()):  # also where a row is not finite, which the caller reports
                return state
            first = self._floor(state + step * self._rate(state))
            second = first + step * self._rate(first)
            state = self._floor(0.5 * state + 0.5 * second)
            remaining = remaining - step  # exactly zero for a row that has arrived
            previous = step

    def _longest_step(self, state: Tensor) -> Tensor:
        density, velocity, pressure = self._primitive(state)
        speed = velocity.abs() + (self.gamma * pressure / density).sqrt()
        return self.cfl * self.cell_width / speed.amax(dim=1, keepdim=True)

    def _primitive(self, state: Tensor) -> Tensor:
        density, momentum, energy = state
        velocity = momentum / density
        pressure = (self.gamma - 1.0) * (energy - 0.5 * momentum * velocity)
        return torch.stack([density, velocity, pressure.clamp(min=PRESSURE_FLOOR)])

    def _floor(self, state: Tensor) -> Tensor:
        """`state` with its pressure at least PRESSURE_FLOOR; changed in place."""
        density, momentum, energy = state
        least = 0.5 * momentum * (momentum / density) + PRESSURE_FLOOR / (self.gamma - 1.0)
        torch.maximum(energy, least, out=energy)
        return state

    def _rate(self, state: Tensor) -> Tensor:
        """Time derivative of the cell averages by the fluxes, [3, n, x]."""
        primitive = self._primitive(state)
        padded = torch.cat(
            [primitive[..., -2:], primitive, primitive[..., :2]]
            if self.periodic
            else [primitive[..., :1].expand(-1, -1, 2), primitive, primitive[..., -1:].expand(-1, -1, 2)],
            dim=-1,
        )
        before, after = padded[..., 1:-2], padded[..., 2:-1]
        # minmod(2a, 2b, (a + b)/2)/2 is (a + b)/4 clamped between min(max(a, b), 0) and max(min(a, b), 0).
        difference = padded[..., 1:] - padded[..., :-1]
        a, b = difference[..., :-1], difference[..., 1:]
        half_slope = torch.clamp(
            0.25 * (padded[..., 2:] - padded[..., :-2]),
            torch.maximum(a, b).clamp_(max=0.0),
            torch.minimum(a, b).clamp_(min=0.0),
        )
        flux = _hllc_flux(before + half_slope[..., :-1], after - half_slope[..., 1:], self.gamma)
        if self.viscosity > 0 and not self.implicit:
            mean, change = 0.5 * (before + after), difference[1, :, 1:-1]
            stress = (self.viscosity / self.cell_width) * (mean[0] * change)
            flux[1] -= stress
            flux[2] -= mean[1] * stress
        return (flux[..., :-1] - flux[..., 1:]) / self.cell_width

    def _diffuse(self, state: Tensor, duration: Tensor) -> Tensor:
        """Viscosity alone for `duration` [n, 1]: Alexander's two stages with one matrix."""
        density, momentum, energy = state
        coupling = (0.5 * self.viscosity / self.cell_width**2) * (density + density.roll(-1, dims=1))
        if not self.periodic:
            coupling[:, -1] = 0.0
        early, late = (1.0 - _ALEXANDER) * duration, _ALEXANDER * duration
        system = _factorise(density, late * coupling, periodic=self.periodic)

        velocity = system.solve(momentum)
        flux = early * (coupling * (velocity.roll(-1, dims=1) - velocity))
        work = flux * (0.5 * (velocity.roll(-1, dims=1) + velocity))
        velocity = system.solve(momentum + (flux - flux.roll(1, dims=1)))
        last = late * (coupling * (velocity.roll(-1, dims=1) - velocity))
        work = work + last * (0.5 * (velocity.roll(-1, dims=1) + velocity))
        flux = flux + last
        return torch.stack(
            [
                density,
                momentum + (flux - flux.roll(1, dims=1)),
                energy + (work - work.roll(1, dims=1)),
            ]
        )


@dataclass(frozen=True)
class _Factorised:
    """A cyclic tridiagonal system after reduction: what each level adds from either side, and the row sums."""

    levels: list[tuple[Tensor, Tensor]]
    row_sum: Tensor

    def solve(self, right: Tensor) -> Tensor:
        """x [n, x] of A x = `right`."""
        for level, (from_right, from_left) in enumerate(self.levels):
            stride = 2**level
            right = right + (
                from_right * right.roll(-stride, dims=1) + from_left * right.roll(stride, dims=1)
            )
        return right / self.row_sum


def _factorise(row_sum: Tensor, coupling: Tensor, *, periodic: bool) -> _Factorised:
    """Reduce (row_sum_i + c_i + c_{i-1}) x_i - c_i x_{i+1} - c_{i-1} x_{i-1}, cyclic in i; c >= 0, row_sum > 0.

    Each level eliminates the neighbours at its stride and doubles the stride. It ends when the stride reaches the
    number of cells: on an open line nothing is there; on a circle of 2^k cells it is the cell itself. On a circle
    of another size it is some other cell: seven more levels, which square the coupling each, end it below
    rounding for viscosity that has not yet crossed the domain.
    """
    cells = row_sum.shape[1]
    count = (cells - 1).bit_length()
    if periodic and cells != 2**count:
        count += 7
    levels = []
    for level in range(count):
        stride = 2**level
        diagonal = row_sum + (coupling + coupling.roll(stride, dims=1))
        from_right = coupling / diagonal.roll(-stride, dims=1)
        from_left = (coupling / diagonal).roll(stride, dims=1)
        levels.append((from_right, from_left))
        row_sum = row_sum + (
            from_right * row_sum.roll(-stride, dims=1) + from_left * row_sum.roll(stride, dims=1)
        )
        coupling = from_right * coupling.roll(-stride, dims=1)
    return _Factorised(levels, row_sum)


def _hllc_flux(left: Tensor, right: Tensor, gamma: float) -> Tensor:
    """Fluxes (mass, momentum, energy) between primitive states [3, n, faces] (Toro 2009, 10.37 to 10.39).

    The state beside the contact enters as its difference to the given one, which is exactly zero at a contact
    at rest.
    """
    (density_l, velocity_l, pressure_l), (density_r, velocity_r, pressure_r) = left, right
    square_l, square_r = gamma * pressure_l / density_l, gamma * pressure_r / density_r
    # Einfeldt's bounds: Roe's mean velocity, and a mean sound speed that also covers the jump in velocity.
    weight = density_l.sqrt()
    weight = weight / (weight + density_r.sqrt())
    jump = velocity_r - velocity_l
    mean = velocity_l + (1.0 - weight) * jump
    sound = (weight * square_l + (1.0 - weight) * (square_r + 0.5 * (weight * (jump * jump)))).sqrt()
    slowest = torch.minimum(velocity_l - square_l.sqrt(), mean - sound)
    fastest = torch.maximum(velocity_r + square_r.sqrt(), mean + sound)

    inflow_l, inflow_r = density_l * (slowest - velocity_l), density_r * (fastest - velocity_r)
    contact = (pressure_r - pressure_l + (inflow_l * velocity_l - inflow_r * velocity_r)) / (
        inflow_l - inflow_r
    )
    on_left = contact >= 0
    density, velocity, pressure = torch.where(on_left, left, right)
    wave = torch.where(on_left, slowest, fastest)
    inflow = torch.where(on_left, inflow_l, inflow_r)
    reached = torch.where(on_left, slowest.clamp(max=0.0), fastest.clamp(min=0.0))  # 0 in supersonic flow

    momentum = density * velocity
    energy = pressure / (gamma - 1.0) + 0.5 * momentum * velocity
    pressure_star = pressure + inflow * (contact - velocity)
    compression = (contact - velocity) / (wave - contact)
    work = (pressure_star * contact - pressure * velocity) / (wave - contact)
    return torch.stack(
        [
            momentum + reached * (density * compression),
            (momentum * velocity + pressure) + reached * (density * compression * wave),
            velocity * (energy + pressure) + reached * (compression * energy + work),
        ]
    )


def _check_arguments(
    initial: Tensor,
    eta: float,
    zeta: float,
    boundary: str,
    frame_interval: float,
    frames: int,
    gamma: float,
    domain_length: float,
    cfl: float,
) -> None:
    if initial.ndim != 3 or initial.shape[1] < 4 or initial.shape[2] != 3:
        raise ValueError(f"initial must be [n, x, 3] with at least 4 cells, got {tuple(initial.shape)}")
    if initial.dtype not in {torch.float32, torch.float64}:
        raise ValueError(f"initial must be float32 or float64, got {initial.dtype}")
    for name, viscosity in (("eta", eta), ("zeta", zeta)):
        if not (math.isfinite(viscosity) and viscosity >= 0):
            raise ValueError(f"{name} must be finite and not negative, got {viscosity}")
    if boundary not in {"periodic", "outflow"}:
        raise ValueError(f'boundary must be "periodic" or "outflow", got {boundary!r}')
    for name, positive in (("frame_interval", frame_interval), ("domain_length", domain_length)):
        if not (math.isfinite(positive) and positive > 0):
            raise ValueError(f"{name} must be finite and positive, got {positive}")
    if frames < 1:
        raise ValueError(f"frames must be at least 1, got {frames}")
    if not (math.isfinite(gamma) and gamma > 1):
        raise ValueError(f"gamma must be finite and above 1, got {gamma}")
    if not 0 < cfl <= 0.5:
        raise ValueError(f"cfl must be in (0, 0.5], got {cfl}")


def _check_states(primitive: Tensor, rows: Tensor, *, frame: int) -> None:
    """Of `primitive` [n, x, 3], whose rows are the caller's `rows`."""
    finite = torch.isfinite(primitive).flatten(1).all(dim=1)
    positive = (primitive[..., 0] > 0).all(dim=1)
    if frame == 0:
        positive &= (primitive[..., 2] > 0).all(dim=1)
    if bool((finite & positive).all()):
        return
    fix = "check the initial states" if frame == 0 else "lower cfl"
    for held, error, what in (
        (finite, NotFiniteError, "is not finite"),
        (positive, PositivityError, "has a density or pressure that is not positive"),
    ):
        broken = rows[~held].sort().values.tolist()
        if broken:
            raise error(
                f"the state of rows {broken[:8]} ({len(broken)} of {len(rows)}) {what} at frame {frame}",
                where="compressible flow solver",
                fix=fix,
            )
