"""Our own solvers on coarser grids than the truth's: what a surrogate has to be held against.

A solver is given more than a surrogate: the first frame on all cells of the truth's grid, averaged over its own cells (of
what is conserved, as finite volumes have it), where a surrogate sees the strided points. Its steps are as long as
its scheme's stability allows. What it returns are cell averages on its own grid, and the truth has points between its
centres, so it is read in two ways, linearly, which keeps shocks free of ringing, and by the interpolation that the decoders
use, which is as accurate as the grid in smooth flow; the better of the two on the scored trajectories counts. So no error
is charged to a solver for where its cells lie.

Averages of wave k over a cell are smaller than its amplitude by sinc(k/N); on periodic axes the second way undoes that for
the solver's cells, and does it for the truth's.

Darcy flow's wall is half a cell outside the square (see `ups.physics.darcy`), so that a coarser grid of the unit square
solves another domain. Here the coarse nodes divide the truth's own domain, of side 1 + h, and the forcing is scaled to their
distance. The state that the truth relaxes from is not in its file; what a solver can know is the steady state.

Rejected: to hand the strided points to the solver as if they were averages (a second-order error from the start), and to
compare on the solver's grid (another truth at every resolution).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ups.errors import ConfigurationError
from ups.models.interpolation import interpolate
from ups.models.token_grid import TokenGrid
from ups.physics.advection import solve_advection
from ups.physics.burgers import solve_burgers
from ups.physics.compressible import solve_compressible
from ups.physics.darcy import solve_darcy_steady
from ups.physics.upwind_advection import solve_upwind_advection
from ups.problems import Boundary, Problem
from ups.problems.ideal_gas import to_conserved, to_primitive

Solver = Callable[[Tensor, "Given"], Tensor]
"""A first frame [n, *cells, C] in primitive variables, and what is known of the problem, to fields [n, t, *cells, C]."""

_LONGEST_BURGERS, _LONGEST_GAS = 1.0, 0.5  # Courant numbers up to which the schemes preserve strong stability
_DARCY_TOLERANCE = 1e-4  # an order below what the relaxation leaves over in the truth


@dataclass(frozen=True)
class Given:
    """What a solver knows beside the first frame.

    Attributes:
        frame_interval, frames: of the truth; of a map 1 and 2.
    """

    problem: Problem
    parameters: Mapping[str, float]
    boundary: Boundary
    frame_interval: float
    frames: int

    @property
    def times(self) -> dict[str, Any]:
        return {"frame_interval": self.frame_interval, "frames": self.frames}


def _burgers(initial: Tensor, given: Given) -> Tensor:
    return solve_burgers(initial[..., 0], **given.parameters, **given.times, cfl=_LONGEST_BURGERS)[..., None]


def _exact_advection(initial: Tensor, given: Given) -> Tensor:
    return solve_advection(initial[..., 0], **given.parameters, **given.times)[..., None]


def _upwind_advection(initial: Tensor, given: Given) -> Tensor:
    return solve_upwind_advection(initial[..., 0], **given.parameters, **given.times)[..., None]


def _gas(initial: Tensor, given: Given) -> Tensor:
    assert given.boundary != "dirichlet"  # the problem has no such boundary
    return solve_compressible(
        initial, **given.parameters, boundary=given.boundary, **given.times, cfl=_LONGEST_GAS
    )


def _darcy(initial: Tensor, given: Given) -> Tensor:
    (forcing,) = given.parameters.values()
    steady = solve_darcy_steady(initial[..., 0], forcing=forcing, tolerance=_DARCY_TOLERANCE)
    return torch.stack([initial, torch.stack([initial[..., 0], steady], dim=-1)], dim=1)


COMPILED = frozenset({_gas})
"""Solvers that torch.compile makes faster: on a CPU the gas takes a quarter of its time.

Burgers' steps are transforms of complex numbers, which the compiler leaves as they are, in a loop that it unrolls: after 348 s of
compiling one trajectory took as long as before, and of 64 the program failed (torch 2.13). The others are a few calls of libraries.
"""

SOLVERS: dict[str, dict[str, Solver]] = {
    "burgers1d": {"finite volumes": _burgers},
    "advection1d": {"exact shift": _exact_advection, "upwind scheme": _upwind_advection},
    "compressible1d": {"finite volumes": _gas},
    "darcy2d": {"steady state": _darcy},
}
"""By equation, and by what people call them."""


def solvers_of(problem: Problem) -> dict[str, Solver]:
    """The solvers of an equation.

    Raises:
        ConfigurationError: there is none.
    """
    if problem.name not in SOLVERS:
        raise ConfigurationError(
            f"no solver of {problem.name} can be put beside its surrogate",
            where="ups bench frontier",
            fix=f"choose one of {', '.join(SOLVERS)}, or add it to ups/benchmarks/coarse_solvers.py",
        )
    return SOLVERS[problem.name]


def coarser_grids(points: int, wanted: tuple[int, ...] | None) -> list[int]:
    """Cells per axis of the solvers' grids, coarsest first, without the truth's own.

    points: of the truth's grid. wanted: None: the truth's halves, quarters, ..., at most six, with eight cells at least.

    Raises:
        ConfigurationError: a wanted grid is none whose cells are unions of the truth's, or there is none to choose.
    """
    divisors = [n for n in range(_LEAST_CELLS, points) if points % n == 0]
    fix = (
        f"choose some of {', '.join(map(str, divisors))}"
        if divisors
        else "there is none: use data on a finer grid"
    )
    if wanted is None:
        halves = [points // 2**power for power in range(1, 7) if points % 2**power == 0]
        found = sorted(cells for cells in halves if cells >= _LEAST_CELLS)
        if not found:
            message = (
                f"no half of the truth's {points} cells, or half of that, is a grid of {_LEAST_CELLS} or more"
            )
            raise ConfigurationError(message, where="--cells", fix=fix)
        return found
    for cells in wanted:
        if cells not in divisors:
            message = f"{cells} cells are no coarser grid of a truth on {points}"
            raise ConfigurationError(message, where="--cells", fix=fix)
    return sorted(set(wanted))


_LEAST_CELLS = 8


class CoarseSolver:
    """A solver on a grid of `cells` per axis: from first frames on the truth's grid to forecasts at the scored points."""

    def __init__(self, solve: Solver, given: Given, fine: int, stride: int, cells: int, device: Any) -> None:
        """fine: cells per axis of the truth's grid. stride: of the points that are scored."""
        self.solve, self.given = solve, given
        if given.problem.name == "darcy2d":
            restriction, self.readings = _between_walls(fine, stride, cells)
            spacing = (1 + 1 / fine) / (cells + 1)
            scale = (cells * spacing) ** 2
            parameters = {name: value * scale for name, value in given.parameters.items()}
            self.given = Given(given.problem, parameters, given.boundary, 1.0, 2)
        else:
            restriction = torch.eye(cells, dtype=torch.float64).repeat_interleave(fine // cells, dim=1)
            restriction *= cells / fine
            self.readings = _along_line(fine, stride, cells, periodic=given.boundary == "periodic")
        self.restriction = restriction.float().to(device)
        self.readings = {name: matrix.float().to(device) for name, matrix in self.readings.items()}

    def solved(self, initial: Tensor) -> Tensor:
        """First frames [n, *fine, C], primitive, to what is conserved on the solver's grid [n, t, *cells, C], without the first."""
        gas = bool(self.given.problem.conserved_fields)
        first = to_conserved(initial) if gas else initial
        for axis in range(1, initial.ndim - 1):
            first = _along(axis, self.restriction, first)
        solved = self.solve(to_primitive(first) if gas else first, self.given)[:, 1:]
        return to_conserved(solved) if gas else solved

    def read(self, solved: Tensor, reading: str) -> Tensor:
        """At the scored points, [n, t, *points, C], primitive."""
        for axis in range(2, solved.ndim - 1):
            solved = _along(axis, self.readings[reading], solved)
        return to_primitive(solved) if self.given.problem.conserved_fields else solved


def _along(axis: int, matrix: Tensor, values: Tensor) -> Tensor:
    return (values.movedim(axis, -1) @ matrix.T).movedim(-1, axis)


def _along_line(fine: int, stride: int, cells: int, *, periodic: bool) -> dict[str, Tensor]:
    """Matrices [points, cells] from averages over the solver's cells to those over every stride-th cell of the truth."""
    position = (torch.arange(0, fine, stride, dtype=torch.float64) + 0.5) / fine
    smooth = _interpolation(position, cells, periodic=periodic)
    if periodic:
        wave = torch.arange(cells // 2 + 1, dtype=torch.float64)
        ratio = torch.sinc(wave / fine) / torch.sinc(wave / cells)
        columns = torch.fft.rfft(torch.eye(cells, dtype=torch.float64), dim=0)
        smooth = smooth @ torch.fft.irfft(ratio[:, None] * columns, cells, dim=0)
    return {"linear": _linear(position * cells - 0.5, cells, periodic=periodic), "smooth": smooth}


def _between_walls(fine: int, stride: int, cells: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Averages [cells, fine] around the nodes that divide the domain of the truth, side 1 + h, and matrices [points, cells] from
    its nodes, whose walls are zero."""
    width, spacing = 1 / fine, (1 + 1 / fine) / (cells + 1)
    node = -width / 2 + spacing * torch.arange(1, cells + 1, dtype=torch.float64)[:, None]
    low, high = node - spacing / 2, node + spacing / 2
    edge = width * torch.arange(fine, dtype=torch.float64)
    overlap = (torch.minimum(high, edge + width) - torch.maximum(low, edge)).clamp(min=0)
    along = (
        (torch.arange(0, fine, stride, dtype=torch.float64) + 1) * width / spacing
    )  # in nodes, from the wall
    smooth = _interpolation((along + 0.5) / (cells + 2), cells + 2, periodic=False)
    linear = _linear(along, cells + 2, periodic=False)
    return overlap / overlap.sum(dim=1, keepdim=True), {"linear": linear[:, 1:-1], "smooth": smooth[:, 1:-1]}


def _interpolation(position: Tensor, cells: int, *, periodic: bool) -> Tensor:
    """The decoders' interpolation as a matrix [points, cells]."""
    grid = TokenGrid((cells,), (cells,), (periodic,))
    return interpolate(torch.eye(cells, dtype=torch.float64)[..., None], position[:, None], grid)[..., 0].T


def _linear(along: Tensor, cells: int, *, periodic: bool) -> Tensor:
    """Matrix [points, cells]; along: positions in cells. Constant past the outermost centres of an axis with ends."""
    below = along.floor()
    part = (along - below)[:, None]
    below = below.long()
    identity = torch.eye(cells, dtype=torch.float64)
    if periodic:
        return (1 - part) * identity[below % cells] + part * identity[(below + 1) % cells]
    return (1 - part) * identity[below.clamp(0, cells - 1)] + part * identity[(below + 1).clamp(0, cells - 1)]
