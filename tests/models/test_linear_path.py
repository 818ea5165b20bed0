"""The linear path: least squares finds the map there is, and a row of the table is it alone."""

from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from tiny import LATENT_DIM, LINE, PROBLEM, SQUARE, build, fresh, random_batch
from torch import Tensor

from ups.models.embedding import module_key
from ups.models.operators import LatentOperator
from ups.models.operators.linear import LeastSquares, LinearPath, fits
from ups.models.token_grid import TokenGrid

SHEET = TokenGrid((8, 12), (4, 3), (True, True))
WALLED = TokenGrid((8, 12), (4, 3), (False, False))
LONG = TokenGrid((27,), (9,), (True,))


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def fitted(
    layout: TokenGrid, before: Tensor, after: Tensor, weight: Tensor | None = None, parts: int = 3
) -> LinearPath:
    """Of pairs that come in several parts."""
    path = LinearPath(layout, before.shape[-1], trained=False)
    sums = LeastSquares(path)
    weight = torch.ones(len(before)) if weight is None else weight
    for first, second, share in zip(
        before.chunk(parts), after.chunk(parts), weight.chunk(parts), strict=True
    ):
        sums.add(first.float(), second.float(), share)
    sums.fit()
    return path


def circulant(layout: TokenGrid, blocks: Tensor, tokens: Tensor) -> Tensor:
    """z'_k = sum over displacements n of z_{k - n} B_n, written with loops."""
    grid = tokens.unflatten(1, layout.tokens)
    axes = tuple(range(1, 1 + layout.axes))
    total = torch.zeros_like(grid)
    for place in (
        torch.cartesian_prod(*(torch.arange(n) for n in layout.tokens)).view(-1, layout.axes).tolist()
    ):
        total += grid.roll(place, dims=axes) @ blocks[tuple(place)]
    return total.flatten(1, -2)


@pytest.mark.parametrize(
    "layout", [LONG, SHEET, replace(LONG, tokens=(27,))], ids=lambda layout: str(layout.tokens)
)
def test_it_finds_a_block_circulant_map_exactly(layout):
    blocks = 0.3 * normal(*layout.tokens, 3, 3)
    before = normal(80, layout.token_count, 3, seed=1)
    path = fitted(layout, before, before + circulant(layout, blocks, before))
    torch.testing.assert_close(path.fitted.double(), blocks, rtol=0, atol=1e-5)
    others = normal(5, layout.token_count, 3, seed=2)
    torch.testing.assert_close(
        path(others.float()).double(), circulant(layout, blocks, others), rtol=0, atol=1e-4
    )


def test_it_finds_a_plain_matrix_between_walls():
    matrix = 0.3 * normal(24, 24)
    before = normal(200, 12, 2, seed=1)
    change = (before.flatten(1) @ matrix).view_as(before)
    path = fitted(WALLED, before, before + change)
    torch.testing.assert_close(path.fitted.double(), matrix, rtol=0, atol=1e-5)
    torch.testing.assert_close(path(before.float()).double(), change, rtol=0, atol=1e-4)


@pytest.mark.parametrize("layout", [LONG, WALLED], ids=["circulant", "matrix"])
def test_of_noisy_pairs_it_is_the_least_weighted_square(layout):
    """Any change of the map makes the weighted error larger."""
    before, noise = normal(60, layout.token_count, 2, seed=1), normal(60, layout.token_count, 2, seed=2)
    after, weight = 0.5 * before + noise, torch.rand(60, generator=torch.Generator().manual_seed(3)) + 0.1
    path = fitted(layout, before, after, weight)

    def error() -> float:
        left = (after - before - path(before.float()).double()).flatten(1)
        return (weight[:, None] * left).square().sum().item()

    least = error()
    for seed in range(5):
        step = 0.02 * normal(*path.fitted.shape, seed=seed).float()
        for sign in (1, -1):
            path.fitted += sign * step
            assert error() > least
            path.fitted -= sign * step


def test_the_weight_counts_squared_and_nothing_does_for_weight_zero():
    before, after = normal(40, 9, 2), normal(40, 9, 2, seed=1)
    weight = torch.ones(40)
    weight[:10] = 2
    repeated = [torch.cat([pairs, *(pairs[:10],) * 3]) for pairs in (before, after)]
    first, second = fitted(LONG, before, after, weight), fitted(LONG, *repeated)
    torch.testing.assert_close(first.fitted, second.fitted, rtol=1e-4, atol=1e-5)
    weight[:10] = 0
    torch.testing.assert_close(
        fitted(LONG, before, after, weight).fitted,
        fitted(LONG, before[10:], after[10:]).fitted,
        rtol=1e-4,
        atol=1e-5,
    )


def test_what_never_moves_is_left_alone():
    """Of a number that is always 0 nothing is known: the damped fit leaves it out."""
    before = normal(60, 9, 3)
    before[..., 2] = 0
    after = 0.9 * before
    path = fitted(LONG, before, after)
    assert path.fitted.isfinite().all()
    assert path.fitted[..., 2].abs().max() < 1e-6
    assert path.fitted[:, 2].abs().max() < 1e-6


def moved_waves(count: int, frames: int, distance: float, seed: int = 0) -> Tensor:
    """Sums of all waves of 32 points, each frame shifted by a distance: [n, t, 32, 1], float32."""
    generator = torch.Generator().manual_seed(seed)
    size, phase = torch.randn(2, count, 15, generator=generator, dtype=torch.float64)
    x, wave = (torch.arange(32) + 0.5) / 32, torch.arange(1, 16)
    along = x - distance * torch.arange(frames, dtype=torch.float64)[:, None]
    angle = 2 * torch.pi * (wave[:, None, None] * along + phase[..., None, None])
    return (size[..., None, None] * angle.sin()).sum(dim=1).float().unsqueeze(-1)


@pytest.mark.parametrize("distance", [1 / 32, 0.0371, 0.4])
def test_exactly_shifted_waves_are_forecast_for_forty_steps(distance):
    """A shift by any part of a patch is a circulant map of the tokens."""
    layout = LINE.token_grid
    latents = layout.patchify(moved_waves(64, 3, distance).flatten(0, 1)).unflatten(0, (64, 3)).double()
    path = fitted(layout, latents[:, :-1].flatten(0, 1), latents[:, 1:].flatten(0, 1))
    exact = layout.patchify(moved_waves(5, 41, distance, seed=9).flatten(0, 1)).unflatten(0, (5, 41))
    state = exact[:, 0]
    for step in range(1, 41):
        state = state + path(state)
        assert (state - exact[:, step]).norm() < 1e-3 * exact[:, step].norm()


# --- in an operator -------------------------------------------------------------------------------


def names(linear_path: str, **changes: Any) -> set[str]:
    model = fresh("operator", linear_path=linear_path, **changes)
    return {name for name, parameter in model.named_parameters() if name.startswith("linear.")}


def test_a_trained_path_has_parameters_and_a_frozen_one_has_none():
    assert names("none") == names("frozen") == set()
    assert names("trained") == {f"linear.{module_key(PROBLEM)}.change"}
    linear = fresh("operator", network={"kind": "linear"}, linear_path="frozen")
    assert list(linear.parameters()) == []
    assert f"linear.{module_key(PROBLEM)}.fitted" in linear.state_dict(), "it is saved all the same"


def test_training_changes_the_step_and_not_the_row_of_the_best_linear_map():
    model = cast(LatentOperator, fresh("operator", network={"kind": "linear"}, linear_path="trained"))
    batch = random_batch(3)
    assert batch.latents is not None
    state = batch.latents[:, 0]
    fitted_map = model.get_buffer(f"linear.{module_key(PROBLEM)}.fitted")
    fitted_map.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
    row, step = model.linear_step(state, PROBLEM), model(state, batch.scalars, PROBLEM)
    assert torch.equal(row, step)
    assert torch.equal(row, state + cast(LinearPath, model.linear_of(PROBLEM)).as_fitted(state))
    (change,) = model.parameters()
    torch.nn.init.normal_(change, std=0.1)
    assert torch.equal(model.linear_step(state, PROBLEM), row)
    assert (model(state, batch.scalars, PROBLEM) - step).abs().max() > 0.05


def test_it_is_a_path_beside_the_network():
    model = cast(LatentOperator, build("operator", linear_path="frozen"))
    without = cast(LatentOperator, build("operator", linear_path="none"))
    without.load_state_dict(model.state_dict())
    batch = random_batch(3)
    assert batch.latents is not None
    state = batch.latents[:, 0]
    both, network = model(state, batch.scalars, PROBLEM), without(state, batch.scalars, PROBLEM)
    torch.testing.assert_close(
        both - network, model.linear_step(state, PROBLEM) - state, rtol=1e-4, atol=1e-4
    )


def test_there_is_none_where_it_would_be_too_large():
    fine = replace(SQUARE, grid=(128, 128), tokens=(32, 32))
    assert fits(fine.token_grid, LATENT_DIM)
    assert not fits(fine.token_grid, LATENT_DIM + 1)
    assert fits(replace(fine, boundary="periodic").token_grid, 64)
    model = cast(
        LatentOperator, fresh("operator", shapes={"fine": fine, "line": LINE}, latent_dim=LATENT_DIM + 1)
    )
    assert model.has_linear("line")
    assert not model.has_linear("fine")
