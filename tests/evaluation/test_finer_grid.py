"""Points of a finer grid: what striding keeps falls on the model's points, distances are those of the file."""

import pytest
import torch
from small_models import SHAPES, codec, first_frames, held_known
from tiny import decoded_frames, encoded_frames

from ups.evaluation.finer_grid import finer_coordinates, interpolated, strided
from ups.models.token_grid import cell_centres


@pytest.mark.parametrize("grid", [(16,), (8, 8), (4, 6)])
@pytest.mark.parametrize("stride", [1, 2, 3, 4])
@pytest.mark.parametrize("periodic", [True, False])
def test_every_kth_point_is_a_point_of_the_model(grid, stride, periodic):
    fine = finer_coordinates(grid, stride, periodic=periodic)
    shaped = fine.view(*(stride * points for points in grid), len(grid))
    kept = strided(shaped, stride, len(grid)).reshape(-1, len(grid))
    assert torch.equal(kept, cell_centres(grid))


@pytest.mark.parametrize("stride", [2, 4])
def test_distances_are_those_of_the_file(stride):
    """The file's points are (j + 1/2) / N; the model's frame lies (k - 1) / (2 N) further."""
    points = 16
    total = stride * points
    coordinates = finer_coordinates((points,), stride, periodic=False)[:, 0].double()
    in_file = (torch.arange(total).double() + 0.5) / total
    torch.testing.assert_close(
        coordinates - in_file, torch.full((total,), (stride - 1) / (2 * total)).double(), atol=1e-7, rtol=0
    )


@pytest.mark.parametrize(("stride", "beyond"), [(1, 0), (2, 0), (3, 1), (4, 1), (8, 3)])
def test_periodic_axes_wrap_and_walled_ones_run_past_their_end_by_less_than_half_a_cell(stride, beyond):
    wrapped = finer_coordinates((16,), stride, periodic=True)
    assert wrapped.min() >= 0
    assert wrapped.max() < 1
    walled = finer_coordinates((16,), stride, periodic=False)
    assert int((walled > 1).sum()) == beyond
    assert walled.max() <= 1 + 0.5 / 16
    torch.testing.assert_close(walled % 1, wrapped)


def test_a_wave_sampled_on_both_grids_is_one_wave():
    """A field as a function of the model's coordinate: its strided samples are its samples at cell centres."""
    stride, grid = 4, (8, 8)
    fine = finer_coordinates(grid, stride, periodic=True)
    wave = (2 * torch.pi * (fine @ torch.tensor([1.0, 2.0]))).sin().view(32, 32, 1)
    coarse = (2 * torch.pi * (cell_centres(grid) @ torch.tensor([1.0, 2.0]))).sin().view(8, 8, 1)
    torch.testing.assert_close(strided(wave, stride, 2), coarse, atol=1e-6, rtol=0)


@pytest.mark.parametrize("periodic", [True, False])
def test_interpolation_keeps_the_coarse_values_and_linear_functions(periodic):
    stride, grid = 4, (8, 6)
    values = torch.randn(*grid, 2, generator=torch.Generator().manual_seed(0))
    fine = interpolated(values, stride, periodic=periodic)
    assert fine.shape == (32, 24, 2)
    torch.testing.assert_close(strided(fine, stride, 2), values)
    ramp = (cell_centres(grid) @ torch.tensor([2.0, -1.0])).view(*grid, 1)
    exact = (finer_coordinates(grid, stride, periodic=False) @ torch.tensor([2.0, -1.0])).view(32, 24, 1)
    inner = interpolated(ramp, stride, periodic=periodic)[: 7 * 4 + 1, : 5 * 4 + 1]
    torch.testing.assert_close(inner, exact[: 7 * 4 + 1, : 5 * 4 + 1])
    edge = interpolated(values, stride, periodic=periodic)[-1, ::4]
    after = values[0] if periodic else values[-1]
    torch.testing.assert_close(edge, 0.25 * values[-1] + 0.75 * after)


@pytest.mark.parametrize("problem", list(SHAPES))
def test_a_finer_decoding_holds_the_models_own(problem):
    shape, bound = SHAPES[problem], codec().of(problem)
    latents = encoded_frames(bound, first_frames(problem, 2), held_known(problem, 2))
    own = decoded_frames(bound, latents, cell_centres(shape.grid))
    axes = len(shape.grid)
    fine = decoded_frames(
        bound, latents, finer_coordinates(shape.grid, 2, periodic=shape.boundary == "periodic")
    )
    fine = fine.view(2, *(2 * points for points in shape.grid), shape.channels)
    torch.testing.assert_close(strided(fine, 2, axes).flatten(1, -2), own, rtol=1e-5, atol=1e-5)


def test_wrapped_coordinates_decode_as_unwrapped_ones():
    bound = codec().of("wave")
    latents = encoded_frames(bound, first_frames("wave", 2))
    wrapped = decoded_frames(bound, latents, finer_coordinates((32,), 4, periodic=True))
    plain = decoded_frames(bound, latents, finer_coordinates((32,), 4, periodic=False))
    torch.testing.assert_close(wrapped, plain, rtol=1e-4, atol=1e-4)
