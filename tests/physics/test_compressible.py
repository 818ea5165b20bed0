"""The compressible flow solver against exact solutions, conservation laws and symmetries."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ups.errors import NotFiniteError, StageError
from ups.physics.compressible import (
    PositivityError,
    _factorise,
    solve_compressible,
)
from ups.physics.compressible_samples import compressible_initial_states
from ups.physics.riemann import solve_riemann
from ups.problems.ideal_gas import to_conserved, to_primitive

GAMMA = 5 / 3
EULER = {"eta": 0.0, "zeta": 0.0}


def centres(cells: int) -> torch.Tensor:
    """Of cells of [-1, 1]."""
    return (torch.arange(cells, dtype=torch.float64) + 0.5) / cells * 2 - 1


def states(rows: int, cells: int, seed: int = 0, boundary: str = "periodic") -> torch.Tensor:
    return torch.from_numpy(
        compressible_initial_states(range(rows), seed=seed, resolution=cells, boundary=boundary)
    )


def totals(primitive: torch.Tensor) -> torch.Tensor:
    """Means of density, momentum and energy."""
    return to_conserved(primitive).mean(dim=-2)


def riemann_problem(left, right, cells: int, time: float, **arguments) -> tuple[torch.Tensor, torch.Tensor]:
    """(solved, exact), [x, 3] each."""
    x = centres(cells)
    initial = torch.where((x < 0)[:, None], torch.tensor(left).double(), torch.tensor(right).double())
    solved = solve_compressible(
        initial[None], boundary="outflow", frame_interval=time, frames=2, **EULER, **arguments
    )
    gamma = arguments.get("gamma", GAMMA)
    return solved[0, -1], torch.from_numpy(solve_riemann(left, right, x.numpy() / time, gamma=gamma))


def test_shock_tube_of_sod():
    # Shocks, contacts and corners of fans cap the order at one; the contact alone at two thirds.
    errors = []
    for cells in (128, 256, 512):
        solved, exact = riemann_problem((1.0, 0.0, 1.0), (0.125, 0.0, 0.1), cells, 0.4, gamma=1.4)
        errors.append((solved - exact).abs().mean(dim=0).numpy())
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert (errors[-1] < [1.5e-3, 3e-3, 1e-3]).all(), errors
    assert orders.min() > 0.5, orders
    assert orders.mean() > 0.75, orders
    assert solved[:, 0].max() <= 1.0 + 1e-6  # no overshoot above the undisturbed density


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ((1.0, -1.0, 0.4), (1.0, 1.0, 0.4)),  # two fans, a near vacuum between them
        ((1.0, 1.0, 1.0), (2.0, -1.0, 1.0)),  # two shocks
        ((2.0, 3.0, 1.0), (1.0, 3.0, 0.5)),  # supersonic: every wave goes right
        ((1.0, -3.0, 0.5), (2.0, -3.0, 1.0)),  # and left
    ],
)
def test_riemann_problems(left, right):
    solved, exact = riemann_problem(left, right, 256, 0.15)
    assert ((solved - exact).abs().mean(dim=0) < 0.01 * exact.abs().amax(dim=0)).all()


def test_advected_density_converges_at_second_order():
    errors = []
    for cells in (64, 128, 256):
        width = 2 / cells
        x = centres(cells)

        def averages(shift, x=x, width=width):
            factor = math.sin(math.pi * width / 2) / (math.pi * width / 2)  # cell averages of the sine
            density = 1 + 0.3 * factor * torch.sin(math.pi * (x - shift))
            return torch.stack([density, torch.full_like(x, 0.7), torch.ones_like(x)], dim=-1)

        solved = solve_compressible(
            averages(0.0)[None], boundary="periodic", frame_interval=0.5, frames=2, **EULER
        )[0, -1]
        errors.append(float((solved - averages(0.35)).abs().mean(dim=0)[0]))
        assert (solved[:, 1:] - averages(0.0)[:, 1:]).abs().max() < 1e-12  # no acoustic wave starts
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert orders.min() > 1.8, (errors, orders)
    assert orders.max() < 2.6, (errors, orders)


def simple_wave(x: torch.Tensor, time: float, amplitude: float) -> torch.Tensor:
    """Exact isentropic wave to the right before it breaks: v = u(x - (v + c) t), c = 1 + (gamma - 1)/2 v."""
    velocity = torch.zeros_like(x)
    for _ in range(200):
        velocity = amplitude * torch.sin(math.pi * (x - (1 + (GAMMA + 1) / 2 * velocity) * time))
    sound = 1 + (GAMMA - 1) / 2 * velocity
    density = sound ** (2 / (GAMMA - 1))
    return torch.stack([density, velocity, density**GAMMA / GAMMA], dim=-1)


def test_isentropic_wave_converges_at_second_order():
    amplitude, time = 0.1, 0.5
    assert (GAMMA + 1) / 2 * amplitude * math.pi * time < 0.3  # breaks at 1
    nodes, weights = np.polynomial.legendre.leggauss(4)
    errors = []
    for cells in (64, 128, 256):
        offsets = torch.from_numpy(nodes) / cells

        def averages(at, cells=cells, offsets=offsets):
            points = to_conserved(simple_wave(centres(cells)[:, None] + offsets, at, amplitude))
            return to_primitive((points * torch.from_numpy(weights)[:, None] / 2).sum(dim=1))

        solved = solve_compressible(
            averages(0.0)[None], boundary="periodic", frame_interval=time, frames=2, **EULER
        )[0, -1]
        errors.append((solved - averages(time)).abs().mean(dim=0).numpy())
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert orders.min() > 1.8, (errors, orders)
    assert orders.max() < 2.6, (errors, orders)


@pytest.mark.parametrize(
    ("viscosity", "stiff"),
    [(0.0, False), (1e-8, False), (0.01, True), (0.1, True)],
)
@pytest.mark.parametrize("cells", [64, 77])
def test_periodic_totals_are_conserved_to_round_off(viscosity, stiff, cells):
    initial = states(6, cells, seed=2)
    assert (7 / 3 * viscosity * 0.1 / (2 / cells) ** 2 > 0.01) == stiff  # both ways to step viscosity
    solved = solve_compressible(
        initial, eta=viscosity, zeta=viscosity, boundary="periodic", frame_interval=0.1, frames=6
    )
    assert (solved[:, -1] - initial).abs().max() > 0.1
    assert (totals(solved) - totals(initial)[:, None]).abs().max() < 1e-14


@pytest.mark.parametrize("frame_interval", [0.4, 1e-5])
def test_sound_is_damped_at_the_analytic_rate(frame_interval):
    # exp(-nu k^2 t/2) at the angular frequency sqrt(c^2 k^2 - (nu k^2/2)^2), nu = 4/3 eta + zeta. The long
    # interval takes the implicit way; the short one, which is stepped only 20 times, the explicit one.
    eta, zeta, cells, amplitude = 0.02, 0.03, 256, 1e-5
    frames = 3 if frame_interval > 0.1 else 21
    viscosity = 4 / 3 * eta + zeta
    implicit = viscosity * frame_interval / (2 / cells) ** 2 > 0.01
    assert implicit == (frame_interval > 0.1)
    x, wavenumber = centres(cells), 2 * math.pi
    initial = torch.stack(
        [torch.ones_like(x), amplitude * torch.sin(wavenumber * x), torch.full_like(x, 1 / GAMMA)], dim=-1
    )
    solved = solve_compressible(
        initial[None], eta=eta, zeta=zeta, boundary="periodic", frame_interval=frame_interval, frames=frames
    )[0]
    damping = viscosity * wavenumber**2 / 2
    frequency = math.sqrt(wavenumber**2 - damping**2)
    for frame in range(frames):
        t = frame * frame_interval
        expected = math.exp(-damping * t) * (
            math.cos(frequency * t) - damping / frequency * math.sin(frequency * t)
        )
        measured = 2 * float((solved[frame, :, 1] * torch.sin(wavenumber * x)).mean()) / amplitude
        assert measured == pytest.approx(expected, abs=2e-3 if implicit else 1e-7)


def test_explicit_and_implicit_viscosity_agree():
    # Frames too close for stiffness, against one long frame: the same flow, stepped in the two ways.
    cells, viscosity, end = 64, 0.02, 0.05
    initial = states(4, cells, seed=4)
    arguments = {"eta": viscosity, "zeta": viscosity, "boundary": "periodic"}
    explicit = solve_compressible(initial, frame_interval=end / 250, frames=251, **arguments)[:, -1]
    implicit = solve_compressible(initial, frame_interval=end, frames=2, **arguments)[:, -1]
    inviscid = solve_compressible(
        initial, frame_interval=end, frames=2, eta=0.0, zeta=0.0, boundary="periodic"
    )[:, -1]
    assert (explicit - inviscid).abs().max() > 3e-2
    assert (explicit - implicit).abs().max() < 2e-3


@pytest.mark.parametrize("cells", [4, 13, 16, 77])
@pytest.mark.parametrize("periodic", [True, False])
def test_cyclic_reduction_solves_the_system(cells, periodic):
    generator = torch.Generator().manual_seed(cells)
    row_sum, coupling, right = torch.rand(3, 5, cells, generator=generator, dtype=torch.float64)
    row_sum += 0.1
    coupling *= torch.tensor([0.0, 1e-3, 1.0, 30.0, cells**2])[
        :, None
    ]  # the last crosses the domain in a step
    if not periodic:
        coupling[:, -1] = 0
    left = torch.diag_embed(row_sum + coupling + coupling.roll(1, dims=1))
    for i in range(cells):
        left[:, i, (i + 1) % cells] -= coupling[:, i]
        left[:, (i + 1) % cells, i] -= coupling[:, i]
    solved = _factorise(row_sum, coupling, periodic=periodic).solve(right)
    torch.testing.assert_close(solved, torch.linalg.solve(left, right), rtol=1e-10, atol=0)


def test_viscosity_heats_by_what_the_flow_loses():
    # A jump of velocity in a gas so dense and cold that little else moves, and so stiff that one step would be
    # a hundred explicit ones: no cell cools and the velocity does not ring.
    cells = 128
    x = centres(cells)
    velocity = 0.1 * torch.sign(x)
    initial = torch.stack([torch.ones_like(x), velocity, torch.full_like(x, 1e-3)], dim=-1)
    solved = solve_compressible(
        initial[None], eta=30.0, zeta=0.0, boundary="outflow", frame_interval=0.002, frames=3
    )[0]
    assert (torch.diff(solved[1, :, 1]) > -1e-12).all()
    assert solved[1, :, 1].max() < 0.1 + 1e-12
    assert (solved[1, :, 2] > 9e-4).all()
    lost = 0.5 * (velocity**2 - solved[1, :, 0] * solved[1, :, 1] ** 2).mean()
    gained = (solved[1, :, 2] - 1e-3).mean() / (GAMMA - 1)
    assert lost > 1e-4
    assert float(gained / lost) == pytest.approx(1.0, abs=1e-2)


@pytest.mark.parametrize("viscosity", [0.0, 0.1])
def test_contact_at_rest_stays_as_it_is(viscosity):
    density = torch.where(centres(100) < 0.1, 1.0, 0.3)
    initial = torch.stack([density, torch.zeros(100), torch.full((100,), 0.7)], dim=-1).double()
    solved = solve_compressible(
        initial[None], eta=viscosity, zeta=viscosity, boundary="outflow", frame_interval=0.2, frames=4
    )[0]
    assert torch.equal(solved[:, :, :2], initial[:, :2].expand(4, -1, -1))
    torch.testing.assert_close(solved[..., 2], initial[:, 2].expand(4, -1), rtol=1e-15, atol=0)


@pytest.mark.parametrize("viscosity", [1e-8, 0.1])
@pytest.mark.parametrize("boundary", ["periodic", "outflow"])
@pytest.mark.parametrize(
    "dtype", [torch.float32, pytest.param(torch.float64, marks=[pytest.mark.slow, pytest.mark.long])]
)
def test_a_row_does_not_depend_on_its_neighbours(monkeypatch, viscosity, boundary, dtype):
    cells = 50
    initial = states(11, cells, seed=6, boundary=boundary).to(dtype)
    initial[3, :, 1] *= 3  # a fast row, for which the others wait
    arguments = {"eta": viscosity, "zeta": viscosity, "boundary": boundary, "frame_interval": 0.05}
    together = solve_compressible(initial, frames=4, **arguments)
    assert together.dtype == dtype
    assert torch.equal(together[:, 0], initial)
    for row in range(11):
        assert torch.equal(
            solve_compressible(initial[row : row + 1], frames=4, **arguments)[0], together[row]
        )
    assert torch.equal(solve_compressible(initial.flip(0), frames=4, **arguments).flip(0), together)
    assert torch.equal(solve_compressible(initial, frames=3, **arguments), together[:, :3])
    monkeypatch.setattr("ups.physics.compressible._BLOCK_CELLS_CPU", 3 * cells)
    assert torch.equal(solve_compressible(initial, frames=4, **arguments), together)


@pytest.mark.parametrize("viscosity", [0.0, 0.05])
def test_galilean_invariance(viscosity):
    # Seen from a frame that moves by whole cells from frame to frame.
    cells, interval, moved = 256, 0.1, 16
    speed = moved * (2 / cells) / interval
    initial = states(4, cells, seed=8)
    arguments = {"eta": viscosity, "zeta": viscosity, "boundary": "periodic"}
    at_rest = solve_compressible(initial, frame_interval=interval, frames=3, **arguments)
    boosted = initial + torch.tensor([0.0, speed, 0.0])
    moving = solve_compressible(boosted, frame_interval=interval, frames=3, **arguments)
    for frame in range(3):
        back = moving[:, frame].roll(-moved * frame, dims=1) - torch.tensor([0.0, speed, 0.0])
        assert (back - at_rest[:, frame]).abs().mean() < 2e-3
    assert (at_rest[:, -1] - initial).abs().mean() > 5e-2


@settings(max_examples=10, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    shift=st.integers(1, 31),
    cells=st.sampled_from([32, 33]),
    viscosity=st.sampled_from([0.0, 0.1]),
)
def test_translation_and_reflection(seed, shift, cells, viscosity):
    initial = states(1, cells, seed=seed)
    mirror = torch.tensor([1.0, -1.0, 1.0])
    images = torch.cat([initial, initial.roll(shift, dims=1), initial.flip(1) * mirror])
    original, moved, mirrored = solve_compressible(
        images, eta=viscosity, zeta=viscosity, boundary="periodic", frame_interval=0.1, frames=3
    )
    torch.testing.assert_close(moved, original.roll(shift, dims=1), rtol=0, atol=1e-12)
    torch.testing.assert_close(mirrored, original.flip(1) * mirror, rtol=0, atol=1e-12)


def test_outflow_lets_a_wave_out():
    cells = 200
    wave = simple_wave(centres(cells), 0.0, 0.05)
    outside = (centres(cells) < 0) | (centres(cells) > 1)
    wave[outside] = torch.tensor([1.0, 0.0, 1 / GAMMA], dtype=torch.float64)
    solved = solve_compressible(wave[None], boundary="outflow", frame_interval=1.0, frames=3, **EULER)[0]
    assert (solved[0, :, 1]).abs().max() > 0.04
    assert (solved[2, :, 1]).abs().max() < 1e-3


def test_float32_follows_float64():
    initial = states(4, 128, seed=9)
    arguments = {"eta": 0.01, "zeta": 0.01, "boundary": "periodic", "frame_interval": 0.1, "frames": 4}
    single = solve_compressible(initial.float(), **arguments)
    assert (single - solve_compressible(initial, **arguments)).abs().max() < 1e-4


def test_conserved_and_primitive_are_inverse_for_tensors_and_arrays():
    primitive = states(3, 16)
    conserved = to_conserved(primitive)
    density, velocity, pressure = primitive.unbind(-1)
    expected = torch.stack(
        [density, density * velocity, pressure / (GAMMA - 1) + density * velocity**2 / 2], dim=-1
    )
    torch.testing.assert_close(conserved, expected, rtol=1e-14, atol=0)
    torch.testing.assert_close(to_primitive(conserved), primitive, rtol=1e-13, atol=0)
    np.testing.assert_array_equal(to_conserved(primitive.numpy()), conserved.numpy())
    assert to_conserved(primitive.numpy().astype(np.float32)).dtype == np.float32
    assert to_conserved(primitive.float()).dtype == torch.float32


def test_no_rows_and_no_steps():
    arguments = {"boundary": "periodic", "frame_interval": 0.1} | EULER
    assert solve_compressible(torch.empty(0, 8, 3), frames=3, **arguments).shape == (0, 3, 8, 3)
    initial = states(2, 8)
    assert torch.equal(solve_compressible(initial, frames=1, **arguments), initial[:, None])


def test_pressure_below_the_floor_is_raised_to_it():
    # Two streams that part at four times the speed of sound: pressure falls without bound, density does not vanish.
    solved, _ = riemann_problem((1.0, -0.9, 0.1), (1.0, 0.9, 0.1), 128, 0.2)
    assert solved[:, 2].min() >= 1e-4 * (1 - 1e-12)
    x = centres(128)
    parting = torch.stack([torch.ones_like(x), 4 * torch.sign(x), torch.full_like(x, 0.1)], dim=-1)
    solved = solve_compressible(parting[None], boundary="outflow", frame_interval=0.1, frames=2, **EULER)
    assert solved[0, -1, :, 2].min() == pytest.approx(1e-4)
    assert solved[0, -1, :, 0].min() > 0


@pytest.mark.parametrize(
    ("place", "value", "error", "message"),
    [
        (0, math.nan, NotFiniteError, r"rows \[3\] .* not finite at frame 0"),
        (1, math.inf, NotFiniteError, r"rows \[3\] .* not finite at frame 0"),
        (0, -1.0, PositivityError, r"rows \[3\] .* not positive at frame 0"),
        (2, 0.0, PositivityError, r"rows \[3\] .* not positive at frame 0"),
        (1, 1e200, StageError, r"rows \[3\] .* at frame 1"),
    ],
)
def test_bad_states_name_their_rows(place, value, error, message):
    initial = states(5, 32)
    initial[3, 10, place] = value
    with pytest.raises(error, match=message):
        solve_compressible(initial, boundary="periodic", frame_interval=0.01, frames=2, **EULER)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"initial": torch.zeros(8, 3)}, "initial must be"),
        ({"initial": torch.zeros(2, 8, 2)}, "initial must be"),
        ({"initial": torch.ones(2, 8, 3, dtype=torch.float16)}, "initial must be float32"),
        ({"eta": -1.0}, "eta must be"),
        ({"zeta": math.nan}, "zeta must be"),
        ({"boundary": "trans"}, "boundary must be"),
        ({"frame_interval": 0.0}, "frame_interval must be"),
        ({"domain_length": -1.0}, "domain_length must be"),
        ({"frames": 0}, "frames must be"),
        ({"gamma": 1.0}, "gamma must be"),
        ({"cfl": 0.6}, "cfl must be"),
    ],
)
def test_arguments_out_of_range_are_named(change, message):
    arguments = {"initial": torch.ones(2, 8, 3), "boundary": "periodic", "frame_interval": 0.01, "frames": 2}
    arguments |= EULER | change
    initial = arguments.pop("initial")
    with pytest.raises(ValueError, match=message):
        solve_compressible(initial, **arguments)


@pytest.mark.gpu
def test_gpu_follows_cpu():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    initial = states(8, 128)
    arguments = {"eta": 0.1, "zeta": 0.1, "boundary": "periodic", "frame_interval": 0.05, "frames": 3}
    on_gpu = solve_compressible(initial.cuda(), **arguments)
    assert on_gpu.is_cuda
    torch.testing.assert_close(on_gpu.cpu(), solve_compressible(initial, **arguments), rtol=0, atol=1e-10)
