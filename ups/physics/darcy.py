"""Darcy flow in two dimensions, steady and relaxing, the way PDEBench states and discretises it.

    u_t - div(a grad u) = forcing        (x, y) in the unit square, u = 0 outside, a > 0

Units: x, y in domain lengths, a in squared domain lengths per unit of time, t in PDEBench seconds. PDEBench's
"Darcy flow" is not solved for its steady state: it is this equation, integrated from a random state u0 to
t = 1.75, with `forcing` the number in the file's name (beta) and a in {0.1, 1}. What is left of u0 is

    u(t) - u_s = exp(-t A)(u0 - u_s),        A = -div(a grad .),   A u_s = forcing

a few per cent of u0 in rows where a is low nearly everywhere. `solve_darcy_steady` gives u_s, `relax_darcy`
u(t).

Grid: N equal cells along each axis, unknowns at the centres (i + 1/2)/N, h = 1/N. Five-point fluxes with the
arithmetic mean of a on a face:

    (A u)_i = -[ a_{i+1/2} (u_{i+1} - u_i) - a_{i-1/2} (u_i - u_{i-1}) ]/h^2 - (the same along y)

Boundary: u = 0 at the centre of the ghost cell, that is half a cell *outside* the square, and the ghost cell
has the coefficient of its neighbour. Found by experiment: with it PDEBench's stored fields leave a residual
of 3e-5 to 1e-4 of the forcing in the boundary cells; with a ghost coefficient of 0, 1 or the opposite side's,
one of 10 to 150. The domain of the scheme thus has the side 1 + h: against the square itself it is of first
order, on its own domain of second.

Steady state: conjugate gradients, preconditioned with the constant-coefficient operator, which sine modes
diagonalise. The preconditioned spectrum lies between the extremes of a, mostly on the values that a takes
(Gergelits, Mardal, Nielsen, Strakos 2019): about 18 iterations at two values of ratio 10, whatever N is. The
sine transform is a product with the N x N matrix of sines, in float32: the preconditioner steers, the
residual decides, and that is float64 throughout. (Products rounded to TF32 or bfloat16, which torch's global
settings may bring about, cost 2 to 5 iterations more and no accuracy.)

Remnant: Krylov space of (A + I/t)^-1, from w = u0 - u_s (van den Eshof, Hochbruck 2006; Moret, Novati 2004),
with the Rayleigh quotient H = Q^T A Q in place of the recurrence's matrix, so that approximate inner solves
cost basis quality but leave H exact:  exp(-t A) w = Q exp(-t H) Q^T w. Slow modes are what is left at time t
and what the inverse brings out first: about 7 solves, each only as accurate as the last change asks for.

Sources: the scheme as documented for PDEBench's 2D Darcy generator (Takamoto et al. 2022), and the rows.

Rejected:
(1) Explicit steps: h^2/(4 max a) at most, 115,000 of them at 128 cells; 60 to 200 times slower (measured, NumPy).
(2) Sine transform by FFT of the odd extension: its length 2 (N + 1) has the large prime factors 13 (64 cells)
    and 43 (128); 1.5 to 4 times slower than the matrix on a CPU up to 128 cells (measured).
(3) Everything in float32: the second difference of u rounds at 4e-8 N^2 |u|, 5e-3 of the forcing.
(4) A direct factorisation, block by block: 40 MFLOP at 64 cells, about as fast by estimate, but sequential in
    N, which wastes a GPU, and of N^3 floats a row.
(5) exp by poles in the complex plane (Trefethen, Weideman, Schmelzer 2006): four complex solves of the same
    accuracy, each twice the work of a real one; no saving, and complex arithmetic throughout.
(6) exp by implicit steps: each costs a solve, as a Krylov vector does, and gains only its order.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ups.errors import DataError, NotFiniteError, StageError

PDEBENCH_TIME = 1.75

# Rows are worked on in blocks: on a CPU one whose arrays stay in the last-level cache, on a GPU one that is
# large enough to hide its launches and small enough for two dozen basis fields and as many images.
_BLOCK_CELLS_CPU = 65_536
_BLOCK_CELLS_GPU = 4_194_304

_ITERATIONS_MOST = 1_000
_STEADY_TOLERANCE = 1e-8

# The remnant stands still when a further vector changes u by less than this, relative to u; the error left was
# at most half of it (measured at times 1e-4 to 10). An inner solve may err by a tenth of what would matter.
_REMNANT_TOLERANCE = 1e-5
_INNER_SAFETY = 0.1
_INNER_FINEST = 1e-8
_INNER_COARSEST = 1e-2
_BASIS_MOST = 40

_TINY = torch.finfo(torch.float64).tiny  # instead of 0 under a fraction whose numerator is then 0, too


def darcy_residual(coefficient: Tensor, solution: Tensor, *, forcing: float) -> Tensor:
    """What the discrete equation leaves over: div(a grad u) + forcing, [n, x, y]; 0 in the steady state.

    Args:
        coefficient: a at the cell centres [n, x, y].
        solution: u at the cell centres [n, x, y], same dtype and device.
        forcing: the right-hand side (PDEBench's beta).

    Differentiable in both fields. In float32, round-off alone leaves about 4e-8 N^2 |u|.
    """
    return forcing - _apply(_conductance(coefficient), solution)


@torch.no_grad()
def solve_darcy_steady(
    coefficient: Tensor, *, forcing: float, tolerance: float = _STEADY_TOLERANCE
) -> Tensor:
    """The steady state: -div(a grad u) = forcing with u = 0 half a cell outside the unit square.

    Args:
        coefficient: a at the cell centres [n, x, y], positive, float32 or float64, on any device; n may be 0.
        forcing: the right-hand side (PDEBench's beta), constant in space, of either sign.
        tolerance: bound on the preconditioned residual, relative to that of u = 0. The error in the energy norm,
            relative to u, is at most sqrt(max a / min a) times as large; in L2 it came out 20 times smaller
            than the tolerance (measured on PDEBench's rows). 1e-12 to 1.

    Returns:
        [n, x, y], same dtype and device, computed in float64; no gradient flows through it. A row depends on
        its own coefficient and on the arguments, not on the other rows (to round-off).

    Raises:
        ValueError: an argument is out of its range.
        NotFiniteError, DataError: `coefficient` is not finite, not positive; names the rows.
        StageError: the iteration did not converge; names the rows.
    """
    _check_coefficient(coefficient)
    _check_forcing(forcing)
    if not 1e-12 <= tolerance < 1:
        raise ValueError(f"tolerance must be in [1e-12, 1), got {tolerance}")
    solution = torch.empty_like(coefficient)
    for block in _blocks(coefficient):
        solution[block] = forcing * _unit_steady(coefficient[block].double(), block, tolerance=tolerance)
    return solution


@torch.no_grad()
def relax_darcy(
    coefficient: Tensor, initial: Tensor, *, forcing: float, time: float = PDEBENCH_TIME
) -> Tensor:
    """The state at `time` of u_t - div(a grad u) = forcing, from `initial`.

    Args:
        coefficient: a at the cell centres [n, x, y], positive, float32 or float64, on any device; n may be 0.
        initial: the state at time 0, [n, x, y], same dtype and device.
        forcing: the right-hand side (PDEBench's beta), constant in space, of either sign.
        time: finite and positive; PDEBench stores 1.75.

    Returns:
        [n, x, y], same dtype and device, to a relative L2 error below 1e-4 of u (measured: below 1e-5), computed in
        float64; no gradient flows through it. A row depends on its own fields and on the arguments, not on the
        other rows (to that tolerance: a block makes as many steps as its slowest row).

    Raises:
        ValueError: an argument is out of its range.
        NotFiniteError, DataError: a field is not finite, `coefficient` is not positive; names the rows.
        StageError: an iteration did not converge; names the rows.
    """
    _check_coefficient(coefficient)
    _check_forcing(forcing)
    if initial.shape != coefficient.shape or initial.dtype != coefficient.dtype:
        raise ValueError(
            f"initial must be as coefficient, {coefficient.dtype} {tuple(coefficient.shape)}; "
            f"got {initial.dtype} {tuple(initial.shape)}"
        )
    if not (math.isfinite(time) and time > 0):
        raise ValueError(f"time must be finite and positive, got {time}")
    _check_finite(initial, "initial state")
    relaxed = torch.empty_like(initial)
    for block in _blocks(coefficient):
        rows = coefficient[block].double()
        steady = forcing * _unit_steady(rows, block, tolerance=_STEADY_TOLERANCE)
        relaxed[block] = _relaxed(rows, steady, initial[block].double(), block, time=time)
    return relaxed


class _Conductance(NamedTuple):
    """a/h^2 on the faces, those of the boundary included: `x` [n, x + 1, y], `y` [n, x, y + 1]."""

    x: Tensor
    y: Tensor


def _conductance(coefficient: Tensor) -> _Conductance:
    if coefficient.ndim != 3:
        raise ValueError(f"coefficient must be [n, x, y], got {tuple(coefficient.shape)}")
    # The ghost cell repeats its neighbour, so that the mean on a boundary face is the coefficient beside it.
    along_x = torch.cat([coefficient[:, :1], coefficient, coefficient[:, -1:]], dim=1)
    along_y = torch.cat([coefficient[:, :, :1], coefficient, coefficient[:, :, -1:]], dim=2)
    _, cells_x, cells_y = coefficient.shape
    return _Conductance(
        x=(along_x[:, 1:] + along_x[:, :-1]) * (0.5 * cells_x**2),
        y=(along_y[:, :, 1:] + along_y[:, :, :-1]) * (0.5 * cells_y**2),
    )


def _apply(conductance: _Conductance, u: Tensor) -> Tensor:
    """A u = -div(a grad u), [n, x, y]: symmetric and positive definite."""
    padded = torch.nn.functional.pad(u, (1, 1, 1, 1))
    flux_x = conductance.x * (padded[:, 1:, 1:-1] - padded[:, :-1, 1:-1])
    flux_y = conductance.y * (padded[:, 1:-1, 1:] - padded[:, 1:-1, :-1])
    return flux_x[:, :-1] - flux_x[:, 1:] + flux_y[:, :, :-1] - flux_y[:, :, 1:]


class _SinePreconditioner:
    """(mean(a) L + shift)^-1, where L is the operator of a = 1: diagonal in the basis of discrete sines."""

    def __init__(self, coefficient: Tensor, *, shift: float) -> None:
        _, cells_x, cells_y = coefficient.shape
        self.sines_x, eigenvalues_x = _sine_modes(cells_x, coefficient.device)
        self.sines_y, eigenvalues_y = _sine_modes(cells_y, coefficient.device)
        mean = coefficient.mean(dim=(1, 2), keepdim=True)
        self.multiplier = (mean * (eigenvalues_x[:, None] + eigenvalues_y) + shift).reciprocal().float()

    def __call__(self, residual: Tensor) -> Tensor:
        spectrum = self.sines_x @ residual.float() @ self.sines_y
        return (self.sines_x @ (spectrum * self.multiplier) @ self.sines_y).double()


def _sine_modes(cells: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The orthonormal symmetric matrix of sines, float32, and the eigenvalues of its rows, float64."""
    mode = torch.arange(1, cells + 1, dtype=torch.float64, device=device)
    angle = torch.outer(mode, mode).remainder(2 * (cells + 1)) * (math.pi / (cells + 1))
    sines = torch.sin(angle) * math.sqrt(2.0 / (cells + 1))
    eigenvalues = (2.0 * cells * torch.sin(0.5 * math.pi / (cells + 1) * mode)).square()
    return sines.float(), eigenvalues


def _unit_steady(coefficient: Tensor, block: slice, *, tolerance: float) -> Tensor:
    """The steady state of unit forcing; the equation is linear in the forcing."""
    return _conjugate_gradient(
        _conductance(coefficient),
        torch.ones_like(coefficient),
        _SinePreconditioner(coefficient, shift=0.0),
        block,
        shift=0.0,
        tolerance=tolerance,
    )


def _conjugate_gradient(
    conductance: _Conductance,
    right: Tensor,
    precondition: _SinePreconditioner,
    block: slice,
    *,
    shift: float,
    tolerance: Tensor | float,
) -> Tensor:
    """x with (A + shift) x = right: every row until its preconditioned residual fell by its `tolerance` [n, 1, 1].

    A row that has arrived takes steps of length 0 and so keeps its value while the others go on.
    """
    solution = torch.zeros_like(right)
    residual = right.clone()
    direction = precondition(residual)
    norm = _inner(residual, direction)
    target = tolerance**2 * norm
    for _ in range(_ITERATIONS_MOST):
        going = ~(norm <= target)  # NaN goes on, until the limit reports it
        if not bool(going.any()):
            return solution
        image = _apply(conductance, direction).add_(direction, alpha=shift)
        step = torch.where(going, norm / _inner(direction, image), 0.0)
        solution.addcmul_(step, direction)
        residual.addcmul_(step, image, value=-1)
        preconditioned = precondition(residual)
        previous, norm = norm, _inner(residual, preconditioned)
        direction = torch.addcmul(preconditioned, torch.where(going, norm / previous, 0.0), direction)
    raise _not_converged("conjugate gradient", ~(norm <= target), block, _ITERATIONS_MOST)


def _relaxed(coefficient: Tensor, steady: Tensor, initial: Tensor, block: slice, *, time: float) -> Tensor:
    """steady + exp(-time A)(initial - steady), from a Krylov space that grows until the sum stands still.

    The smaller the last change, the less accurate the next vector needs to be.
    """
    conductance = _conductance(coefficient)
    shift = 1.0 / time
    precondition = _SinePreconditioner(coefficient, shift=shift)
    rows, cells_x, cells_y = coefficient.shape
    change = initial - steady
    length = _norm(change)
    vector = change / length.clamp(min=_TINY)

    basis = coefficient.new_empty(rows, _BASIS_MOST, cells_x * cells_y)
    rayleigh = coefficient.new_zeros(rows, _BASIS_MOST, _BASIS_MOST)
    relaxed, going = steady, torch.ones_like(length, dtype=torch.bool)
    for size in range(1, _BASIS_MOST + 1):
        basis[:, size - 1] = vector.flatten(1)
        spanned = basis[:, :size]
        column = spanned @ _apply(conductance, vector).view(rows, -1, 1)
        rayleigh[:, :size, size - 1 : size] = column
        rayleigh[:, size - 1 : size, :size] = column.mT
        rate, modes = torch.linalg.eigh(rayleigh[:, :size, :size])
        weights = (modes * torch.exp(-time * rate)[:, None]) @ modes[:, 0, :, None]
        previous, relaxed = relaxed, steady + length * (weights.mT @ spanned).view_as(steady)

        # The start vector alone knows nothing of the slow modes: what it changes is no measure of what is left.
        if size > 1:
            change = relaxed - previous
        excess = _norm(change) / (_REMNANT_TOLERANCE * _norm(relaxed)).clamp(min=_TINY)
        going = ~(excess <= 1)
        if size > 1 and not bool(going.any()):
            return relaxed

        vector = _conjugate_gradient(
            conductance,
            vector,
            precondition,
            block,
            shift=shift,
            tolerance=(_INNER_SAFETY / excess).clamp(min=_INNER_FINEST, max=_INNER_COARSEST),
        ).view(rows, -1, 1)
        for _ in range(2):  # the second pass removes what the first one's round-off leaves
            vector = vector - spanned.mT @ (spanned @ vector)
        vector = vector.view_as(steady)
        vector = vector / _norm(vector).clamp(min=_TINY)
    raise _not_converged("Krylov space of the remnant", going, block, _BASIS_MOST)


def _norm(field: Tensor) -> Tensor:
    """L2 norm over a row's cells, [n, 1, 1]."""
    return torch.linalg.vector_norm(field, dim=(1, 2), keepdim=True)


def _inner(left: Tensor, right: Tensor) -> Tensor:
    """Sum of left * right over a row's cells, [n, 1, 1]."""
    return torch.linalg.vecdot(left.flatten(1), right.flatten(1))[:, None, None]


def _blocks(coefficient: Tensor) -> list[slice]:
    rows, cells_x, cells_y = coefficient.shape
    block_cells = _BLOCK_CELLS_CPU if coefficient.device.type == "cpu" else _BLOCK_CELLS_GPU
    size = max(1, block_cells // (cells_x * cells_y))
    return [slice(begin, min(begin + size, rows)) for begin in range(0, rows, size)]


def _not_converged(what: str, going: Tensor, block: slice, steps: int) -> StageError:
    rows = (block.start + torch.nonzero(going.flatten()).flatten()).tolist()
    return StageError(
        f"the {what} did not converge in {steps} steps for rows {rows[:8]} ({len(rows)} in this block)",
        where="Darcy solver",
        fix="check the coefficient: the number of steps grows with the root of max a / min a",
    )


def _check_coefficient(coefficient: Tensor) -> None:
    if coefficient.ndim != 3 or 0 in coefficient.shape[1:]:
        raise ValueError(
            f"coefficient must be [n, x, y] with at least 1 cell, got {tuple(coefficient.shape)}"
        )
    if coefficient.dtype not in {torch.float32, torch.float64}:
        raise ValueError(f"coefficient must be float32 or float64, got {coefficient.dtype}")
    _check_finite(coefficient, "coefficient")
    positive = (coefficient > 0).flatten(1).all(dim=1)
    if not bool(positive.all()):
        broken = torch.nonzero(~positive).flatten().tolist()
        raise DataError(
            f"the coefficient of rows {broken[:8]} ({len(broken)} of {len(positive)}) is not positive",
            where="Darcy solver",
            fix="check the coefficient",
        )


def _check_forcing(forcing: float) -> None:
    if not math.isfinite(forcing):
        raise ValueError(f"forcing must be finite, got {forcing}")


def _check_finite(field: Tensor, name: str) -> None:
    finite = torch.isfinite(field).flatten(1).all(dim=1)
    if not bool(finite.all()):
        broken = torch.nonzero(~finite).flatten().tolist()
        raise NotFiniteError(
            f"the {name} of rows {broken[:8]} ({len(broken)} of {len(finite)}) is not finite",
            where="Darcy solver",
            fix=f"check the {name}",
        )
