"""Darcy flow against dense algebra, analytic solutions, its symmetries, and genuine rows."""

import math
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ups.errors import DataError, NotFiniteError, StageError
from ups.physics import darcy
from ups.physics.darcy import darcy_residual, relax_darcy, solve_darcy_steady
from ups.physics.darcy_samples import darcy_coefficients, darcy_initial_states


def coefficients(rows: int, cells: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(darcy_coefficients(range(rows), seed=seed, resolution=cells))


def initial_states(rows: int, cells: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(darcy_initial_states(range(rows), seed=seed, resolution=cells))


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def relative_error(value: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    return (value - reference).flatten(1).norm(dim=1) / reference.flatten(1).norm(dim=1)


def operator_written_out(a: np.ndarray) -> np.ndarray:
    """-div(a grad .) of one row as a dense matrix, cell by cell and face by face as documented."""
    cells_x, cells_y = a.shape
    matrix = np.zeros((cells_x, cells_y, cells_x, cells_y))
    for i in range(cells_x):
        for j in range(cells_y):
            for neighbour_i, neighbour_j, cells in (
                (i - 1, j, cells_x),
                (i + 1, j, cells_x),
                (i, j - 1, cells_y),
                (i, j + 1, cells_y),
            ):
                inside = 0 <= neighbour_i < cells_x and 0 <= neighbour_j < cells_y
                beside = a[neighbour_i, neighbour_j] if inside else a[i, j]
                weight = (a[i, j] + beside) / 2 * cells**2
                matrix[i, j, i, j] += weight
                if inside:
                    matrix[i, j, neighbour_i, neighbour_j] -= weight
    return matrix.reshape(a.size, a.size)


def dense_operators(a: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(np.stack([operator_written_out(row) for row in a.numpy()]))


def genuine_fields(directory: Path) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Coefficient and stored field of the two rows, [2, 128, 128] each, and the forcing."""
    with h5py.File(directory / "2D_DarcyFlow_beta1.0_Train.rows2.hdf5", "r") as file:
        return (
            torch.from_numpy(file["nu"][:]),
            torch.from_numpy(file["tensor"][:, 0]),
            float(file.attrs["beta"]),
        )


# --- genuine rows


def test_reproduces_genuine_rows(genuine_data):
    coefficient, stored, forcing = genuine_fields(genuine_data)
    assert stored.shape == (2, 128, 128)
    # What is left, 0.5e-3 and 1.5e-3, is the remnant of initial states that the file does not hold.
    assert relative_error(solve_darcy_steady(coefficient, forcing=forcing), stored).max() < 2e-3


def test_boundary_of_genuine_rows_is_the_ghost_cell_described(genuine_data):
    coefficient, stored, forcing = genuine_fields(genuine_data)
    residual = darcy_residual(coefficient.double(), stored.double(), forcing=forcing)
    sides = [residual[:, 0], residual[:, -1], residual[:, :, 0], residual[:, :, -1]]
    assert max(float(side.square().mean(dim=1).sqrt().max()) for side in sides) < 2e-4
    # One face with half its coefficient is off by the flux through it, of order 10.
    halved = coefficient.double()
    halved[:, 0] *= 0.5
    assert darcy_residual(halved, stored.double(), forcing=forcing)[:, 0].square().mean().sqrt() > 1


def test_a_genuine_row_is_on_its_way_to_the_steady_state(genuine_data):
    # The remnant decays: integrated for as long again, the stored field comes far closer to the steady state.
    coefficient, stored, forcing = genuine_fields(genuine_data)
    coefficient, stored = coefficient.double(), stored.double()
    steady = solve_darcy_steady(coefficient, forcing=forcing)
    later = relax_darcy(coefficient, stored, forcing=forcing)
    assert (relative_error(later, steady) < 0.03 * relative_error(stored, steady)).all()


# --- the discrete problem, against dense algebra


@pytest.mark.parametrize("shape", [(12, 12), (12, 9), (1, 5)])
def test_operator_and_steady_state_equal_the_dense_matrix(shape):
    a = 0.1 + 0.9 * torch.rand(3, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    dense = dense_operators(a)
    u = noise(3, *shape)
    by_matrix = 2.5 - (dense @ u.reshape(3, -1, 1)).view_as(u)
    torch.testing.assert_close(darcy_residual(a, u, forcing=2.5), by_matrix, rtol=1e-12, atol=1e-10)
    solved = torch.linalg.solve(dense, torch.full((3, u[0].numel()), 2.5, dtype=torch.float64)).view_as(u)
    assert relative_error(solve_darcy_steady(a, forcing=2.5), solved).max() < 1e-8
    assert relative_error(solve_darcy_steady(a, forcing=2.5, tolerance=1e-12), solved).max() < 1e-12


@pytest.mark.parametrize("forcing", [0.0, 0.01, 1.0, 100.0])
@pytest.mark.parametrize("time", [1e-4, 0.01, 0.25, 1.75, 10.0])
def test_relaxation_equals_the_dense_exponential(forcing, time):
    a, initial = coefficients(4, 12), initial_states(4, 12)
    dense = dense_operators(a)
    steady = torch.linalg.solve(dense, torch.full((4, 144), forcing, dtype=torch.float64))
    remnant = torch.matrix_exp(-time * dense) @ (initial.flatten(1) - steady)[..., None]
    exact = (steady + remnant[..., 0]).view_as(initial)
    assert relative_error(relax_darcy(a, initial, forcing=forcing, time=time), exact).max() < 1e-5


def test_operator_is_symmetric_and_its_form_is_the_energy():
    a, u, v = coefficients(3, 32), noise(3, 32, 32, seed=1), noise(3, 32, 32, seed=2)

    def form(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return -(left * darcy_residual(a, right, forcing=0.0)).sum(dim=(1, 2))

    torch.testing.assert_close(form(u, v), form(v, u), rtol=1e-12, atol=1e-8)
    # Sum over the faces of a |u - u_neighbour|^2 / h^2: positive unless u = 0.
    energy = torch.zeros(3, dtype=torch.float64)
    for dim in (1, 2):
        edge = torch.zeros_like(u.narrow(dim, 0, 1))
        jump = torch.diff(torch.cat([edge, u, edge], dim=dim), dim=dim)
        beside = torch.cat([a.narrow(dim, 0, 1), a, a.narrow(dim, -1, 1)], dim=dim)
        face = (beside.narrow(dim, 0, 33) + beside.narrow(dim, 1, 33)) / 2
        energy += 32**2 * (face * jump.square()).sum(dim=(1, 2))
    torch.testing.assert_close(form(u, u), energy, rtol=1e-12, atol=0)


def test_residual_of_the_steady_state_is_what_the_tolerance_says():
    a = coefficients(4, 32)
    for tolerance, left in ((1e-4, 1e-1), (1e-8, 1e-5), (1e-12, 1e-9)):
        u = solve_darcy_steady(a, forcing=3.0, tolerance=tolerance)
        residual = darcy_residual(a, u, forcing=3.0).square().mean(dim=(1, 2)).sqrt() / 3.0
        assert residual.max() < left
        assert residual.max() > 1e-3 * tolerance  # it stops where it is told to


# --- the equation, against analytic solutions and measured orders


def scheme_grid(cells: int) -> tuple[torch.Tensor, float]:
    """Cell centres in the scheme's own domain, from one ghost centre to the other, as numbers in (0, 1); its side."""
    return torch.arange(1, cells + 1, dtype=torch.float64) / (cells + 1), (cells + 1) / cells


def smooth_coefficient(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return 0.55 + 0.3 * torch.cos(2 * x + 1) * torch.sin(3 * y)


def test_operator_is_of_second_order_for_a_manufactured_field():
    errors = []
    for cells in (16, 32, 64, 128):
        grid, side = scheme_grid(cells)
        x, y = torch.meshgrid(grid, grid, indexing="ij")
        x.requires_grad_()
        y.requires_grad_()
        u = torch.sin(math.pi * x) * torch.sin(2 * math.pi * y)
        a = smooth_coefficient(x, y)
        slope_x, slope_y = torch.autograd.grad(u.sum(), (x, y), create_graph=True)
        (curve_x,) = torch.autograd.grad((a * slope_x).sum(), x, retain_graph=True)
        (curve_y,) = torch.autograd.grad((a * slope_y).sum(), y)
        exact = (curve_x + curve_y) / side**2
        discrete = darcy_residual(a[None].detach(), u[None].detach(), forcing=0.0)[0]
        # On a boundary face the coefficient is that of the cell beside it, of first order: inner cells only.
        errors.append(float((discrete - exact)[1:-1, 1:-1].abs().max()))
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert (orders > 1.7).all(), (errors, orders)
    assert (orders < 2.3).all(), (errors, orders)


def test_steady_state_converges_at_second_order():
    # (cells + 1) doubles, so that every coarse centre is a fine one. The coarse solution lives on a domain of
    # side 1 + h and is scaled to the unit square.
    solutions = []
    for cells in (15, 31, 63, 127):
        grid, side = scheme_grid(cells)
        a = smooth_coefficient(*torch.meshgrid(grid, grid, indexing="ij"))
        u = solve_darcy_steady(a[None], forcing=1.0, tolerance=1e-11)[0] / side**2
        stride = (cells + 1) // 16
        solutions.append(u[stride - 1 :: stride, stride - 1 :: stride])
    changes = [float((fine - coarse).norm()) for coarse, fine in pairwise(solutions)]
    orders = np.log2(np.array(changes[:-1]) / changes[1:])
    assert (orders > 1.8).all(), (changes, orders)
    assert (orders < 2.2).all(), (changes, orders)


def test_constant_coefficient_gives_the_torsion_series():
    # -0.3 (u_xx + u_yy) = 1: the value in the middle, by Fourier series, is 0.0736713.../0.3.
    odd = np.arange(1, 400, 2)
    sign = np.sin(np.pi * odd / 2)
    middle = (16 / np.pi**4) * np.sum(
        np.outer(sign, sign) / np.outer(odd, odd) / (odd[:, None] ** 2 + odd**2)
    )
    errors = []
    for cells in (31, 63, 127):
        u = solve_darcy_steady(torch.full((1, cells, cells), 0.3, dtype=torch.float64), forcing=1.0)[0]
        side = (cells + 1) / cells
        errors.append(abs(float(u[cells // 2, cells // 2]) * 0.3 / side**2 - middle))
    assert errors[-1] < 2e-5
    assert 3.5 < errors[0] / errors[1] < 4.5
    assert 3.5 < errors[1] / errors[2] < 4.5


@pytest.mark.parametrize("time", [0.05, 0.5, 1.75])
def test_a_sine_mode_decays_at_its_discrete_rate(time):
    cells = 24
    a = torch.full((1, cells, cells), 0.1, dtype=torch.float64)
    steady = solve_darcy_steady(a, forcing=0.2)
    grid, _ = scheme_grid(cells)
    mode = torch.outer(torch.sin(math.pi * grid), torch.sin(2 * math.pi * grid))[None]
    rate = 0.1 * sum((2 * cells * math.sin(math.pi * k / (2 * (cells + 1)))) ** 2 for k in (1, 2))
    relaxed = relax_darcy(a, steady + 3.0 * mode, forcing=0.2, time=time)
    exact = steady + 3.0 * math.exp(-rate * time) * mode
    assert relative_error(relaxed, exact).max() < 1e-6


# --- identities


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 2**32), forcing=st.floats(-50.0, 50.0), factor=st.floats(0.05, 20.0))
def test_scalings_of_the_equation(seed, forcing, factor):
    """Linear in forcing and initial state together; a factor on a is one on time."""
    a, initial = coefficients(2, 16, seed=seed), initial_states(2, 16, seed=seed)
    unit = solve_darcy_steady(a, forcing=1.0)
    torch.testing.assert_close(solve_darcy_steady(a, forcing=forcing), forcing * unit, rtol=1e-7, atol=1e-12)
    torch.testing.assert_close(
        solve_darcy_steady(factor * a, forcing=1.0), unit / factor, rtol=1e-6, atol=1e-12
    )
    relaxed = relax_darcy(a, initial, forcing=forcing, time=1.0)
    doubled = relax_darcy(a, -2 * initial, forcing=-2 * forcing, time=1.0)
    assert relative_error(doubled, -2 * relaxed).max() < 1e-5
    faster = relax_darcy(factor * a, initial, forcing=factor * forcing, time=1.0 / factor)
    assert relative_error(faster, relaxed).max() < 1e-5


@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_symmetries_of_the_square(seed):
    a, initial = coefficients(1, 16, seed=seed), initial_states(1, 16, seed=seed)
    for image in (lambda u: u.flip(1), lambda u: u.flip(2), lambda u: u.mT):
        turned = relax_darcy(image(a).contiguous(), image(initial).contiguous(), forcing=0.1)
        assert relative_error(turned, image(relax_darcy(a, initial, forcing=0.1))).max() < 1e-5


def test_two_relaxations_are_one_of_the_whole_time():
    a, initial = coefficients(4, 24), initial_states(4, 24)
    whole = relax_darcy(a, initial, forcing=0.1, time=0.6)
    first = relax_darcy(a, initial, forcing=0.1, time=0.2)
    assert relative_error(relax_darcy(a, first, forcing=0.1, time=0.4), whole).max() < 1e-5
    assert (relative_error(first, whole) > 0.1).all()


def test_relaxation_ends_in_the_steady_state_and_stays_there():
    a, initial = coefficients(4, 24), initial_states(4, 24)
    steady = solve_darcy_steady(a, forcing=1.0)
    # exp(-2 pi^2 0.1 100) is nothing.
    assert relative_error(relax_darcy(a, initial, forcing=1.0, time=100.0), steady).max() < 1e-7
    assert relative_error(relax_darcy(a, steady, forcing=1.0, time=0.1), steady).max() < 1e-7
    at_rest = relax_darcy(a, torch.zeros_like(a), forcing=0.0)
    assert torch.equal(at_rest, torch.zeros_like(a))


def test_steady_state_is_positive_and_falls_where_the_coefficient_grows():
    low = coefficients(4, 32)
    high = torch.where(low < 0.5, 0.2, low)
    u, v = solve_darcy_steady(low, forcing=1.0), solve_darcy_steady(high, forcing=1.0)
    assert (u > 0).all()
    assert (v.mean(dim=(1, 2)) < u.mean(dim=(1, 2))).all()  # the compliance, a decreasing function of a


# --- batches, precision, threads


def test_rows_and_blocks_do_not_influence_one_another(monkeypatch):
    a, initial = coefficients(7, 16, seed=3), initial_states(7, 16, seed=3)
    a[2], a[4] = 1.0, 0.1  # the fastest and the slowest
    steady = solve_darcy_steady(a, forcing=0.1)
    relaxed = relax_darcy(a, initial, forcing=0.1)
    for row in range(7):
        single = slice(row, row + 1)
        assert relative_error(solve_darcy_steady(a[single], forcing=0.1), steady[single]).max() < 1e-9
        assert (
            relative_error(relax_darcy(a[single], initial[single], forcing=0.1), relaxed[single]).max() < 1e-5
        )
    monkeypatch.setattr(darcy, "_BLOCK_CELLS_CPU", 3 * 16 * 16)
    assert relative_error(solve_darcy_steady(a, forcing=0.1), steady).max() < 1e-9
    assert relative_error(relax_darcy(a, initial, forcing=0.1), relaxed).max() < 1e-5


def test_float32_is_the_rounded_float64():
    a, initial = coefficients(3, 32).float(), initial_states(3, 32).float()
    steady, relaxed = solve_darcy_steady(a, forcing=1.0), relax_darcy(a, initial, forcing=1.0)
    assert steady.dtype == relaxed.dtype == torch.float32
    assert torch.equal(steady, solve_darcy_steady(a.double(), forcing=1.0).float())
    assert torch.equal(relaxed, relax_darcy(a.double(), initial.double(), forcing=1.0).float())


def test_a_coarse_preconditioner_costs_no_accuracy(monkeypatch):
    # Torch's global settings may round products of float32 matrices to TF32 or bfloat16.
    a, initial = coefficients(3, 32), initial_states(3, 32)
    steady = solve_darcy_steady(a, forcing=1.0, tolerance=1e-11)
    relaxed = relax_darcy(a, initial, forcing=1.0)
    exact_modes = darcy._sine_modes

    def rounded_modes(*arguments):
        sines, eigenvalues = exact_modes(*arguments)
        return sines.bfloat16().float(), eigenvalues

    monkeypatch.setattr(darcy, "_sine_modes", rounded_modes)
    assert relative_error(solve_darcy_steady(a, forcing=1.0, tolerance=1e-11), steady).max() < 1e-10
    assert relative_error(relax_darcy(a, initial, forcing=1.0), relaxed).max() < 1e-5


@pytest.mark.parametrize("cells", [16, 64, 128])
def test_iterations_do_not_grow_with_the_grid(monkeypatch, cells):
    monkeypatch.setattr(darcy, "_ITERATIONS_MOST", 28)
    solve_darcy_steady(coefficients(4, cells), forcing=1.0, tolerance=1e-8)


def test_threads_do_not_disturb_one_another():
    batches = [(coefficients(3, 24, seed), initial_states(3, 24, seed)) for seed in range(4)]

    def relax(batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return relax_darcy(*batch, forcing=0.1)

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(relax, batches))
    for batch, result in zip(batches, together, strict=True):
        assert torch.equal(relax(batch), result)


def test_residual_is_differentiable():
    a, u = coefficients(1, 5), noise(1, 5, 5)
    a.requires_grad_()
    u.requires_grad_()
    assert torch.autograd.gradcheck(lambda a, u: darcy_residual(a, u, forcing=1.0), (a, u))


def test_no_rows():
    empty = torch.empty(0, 8, 8)
    assert solve_darcy_steady(empty, forcing=1.0).shape == (0, 8, 8)
    assert relax_darcy(empty, empty, forcing=1.0).shape == (0, 8, 8)


# --- errors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"time": 0.0}, "time must be"),
        ({"time": math.inf}, "time must be"),
        ({"forcing": math.nan}, "forcing must be"),
        ({"coefficient": torch.ones(8, 8)}, "coefficient must be"),
        ({"coefficient": torch.ones(2, 0, 8)}, "coefficient must be"),
        ({"coefficient": torch.ones(2, 8, 8, dtype=torch.int64)}, "coefficient must be"),
        ({"initial": torch.ones(2, 8, 9)}, "initial must be"),
        ({"initial": torch.ones(2, 8, 8, dtype=torch.float64)}, "initial must be"),
    ],
)
def test_arguments_out_of_range_are_named(change, message):
    arguments = {"coefficient": torch.ones(2, 8, 8), "initial": torch.ones(2, 8, 8), "forcing": 1.0} | change
    with pytest.raises(ValueError, match=message):
        relax_darcy(arguments.pop("coefficient"), arguments.pop("initial"), **arguments)


@pytest.mark.parametrize("tolerance", [0.0, 1e-13, 1.0, math.nan])
def test_a_tolerance_out_of_reach_is_refused(tolerance):
    with pytest.raises(ValueError, match="tolerance must be"):
        solve_darcy_steady(torch.ones(1, 8, 8), forcing=1.0, tolerance=tolerance)


def test_fields_that_are_not_physical_name_their_rows():
    a, initial = coefficients(5, 16), initial_states(5, 16)
    negative, broken = a.clone(), initial.clone()
    negative[3, 2, 2] = 0.0
    broken[1, 4, 4] = math.nan
    with pytest.raises(DataError, match=r"coefficient of rows \[3\]"):
        solve_darcy_steady(negative, forcing=1.0)
    with pytest.raises(NotFiniteError, match=r"initial state of rows \[1\]"):
        relax_darcy(a, broken, forcing=1.0)
    negative[3, 2, 2] = math.inf
    with pytest.raises(NotFiniteError, match=r"coefficient of rows \[3\]"):
        relax_darcy(negative, initial, forcing=1.0)


def test_a_solver_that_does_not_converge_raises(monkeypatch):
    a, initial = coefficients(4, 16), initial_states(4, 16)
    easy = torch.full_like(a, 0.5)
    easy[2] = a[2]
    monkeypatch.setattr(darcy, "_ITERATIONS_MOST", 5)
    with pytest.raises(StageError, match=r"did not converge in 5 steps for rows \[2\]"):
        solve_darcy_steady(easy, forcing=1.0)
    monkeypatch.setattr(darcy, "_BLOCK_CELLS_CPU", 2 * 16 * 16)  # row 2 is then the first of the second block
    with pytest.raises(StageError, match=r"for rows \[2\]"):
        solve_darcy_steady(easy, forcing=1.0)
    monkeypatch.undo()
    monkeypatch.setattr(darcy, "_BASIS_MOST", 3)
    with pytest.raises(StageError, match="Krylov space of the remnant did not converge in 3"):
        relax_darcy(a, initial, forcing=0.01)


def test_an_absurd_contrast_is_refused_rather_than_returned():
    a = 10.0 ** (8 * noise(1, 32, 32).clamp(-2, 2))
    with pytest.raises(StageError, match="did not converge"):
        solve_darcy_steady(a, forcing=1.0)


@pytest.mark.gpu
def test_gpu_follows_cpu():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    a, initial = coefficients(20, 64), initial_states(20, 64)
    steady = solve_darcy_steady(a.cuda(), forcing=1.0)
    relaxed = relax_darcy(a.cuda(), initial.cuda(), forcing=1.0)
    assert steady.is_cuda
    assert relaxed.is_cuda
    assert relative_error(steady.cpu(), solve_darcy_steady(a, forcing=1.0)).max() < 1e-8
    assert relative_error(relaxed.cpu(), relax_darcy(a, initial, forcing=1.0)).max() < 1e-5
