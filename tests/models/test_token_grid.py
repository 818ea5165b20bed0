"""Patches keep every point, in C order, in any number of axes."""

import pytest
import torch

from ups.models.rotary import rotate
from ups.models.token_grid import TokenGrid, cell_centres


def unpatchify(layout: TokenGrid, patches: torch.Tensor, channels: int) -> torch.Tensor:
    """The inverse, written with loops."""
    fields = torch.empty(len(patches), *layout.grid, channels)
    tokens = torch.cartesian_prod(*(torch.arange(n) for n in layout.tokens)).view(-1, layout.axes)
    points = torch.cartesian_prod(*(torch.arange(n) for n in layout.patch)).view(-1, layout.axes)
    for k, token in enumerate(tokens.tolist()):
        for p, point in enumerate(points.tolist()):
            place = tuple(t * n + q for t, n, q in zip(token, layout.patch, point, strict=True))
            fields[(slice(None), *place)] = patches[:, k, p * channels : (p + 1) * channels]
    return fields


@pytest.mark.parametrize(("grid", "tokens"), [((12,), (4,)), ((6, 8), (3, 2)), ((4, 6, 4), (2, 3, 1))])
def test_a_round_trip_keeps_every_point_in_its_place(grid, tokens):
    layout = TokenGrid(grid, tokens, (True,) * len(grid))
    fields = torch.randn(2, *grid, 3)
    patches = layout.patchify(fields)
    assert patches.shape == (2, layout.token_count, layout.patch_points * 3)
    assert torch.equal(unpatchify(layout, patches, 3), fields)
    assert torch.equal(layout.unpatchify(patches), fields)


def test_a_token_sits_in_the_middle_of_its_patch():
    layout = TokenGrid((6, 8), (3, 2), (True, False))
    centres = cell_centres(layout.grid).view(1, 6, 8, 2)
    means = layout.patchify(centres).view(layout.token_count, layout.patch_points, 2).mean(dim=1)
    torch.testing.assert_close(layout.token_positions(), means)


def test_cell_centres_lie_half_a_cell_inside():
    assert cell_centres((4,)).flatten().tolist() == [0.125, 0.375, 0.625, 0.875]
    assert cell_centres((2, 2)).tolist() == [[0.25, 0.25], [0.25, 0.75], [0.75, 0.25], [0.75, 0.75]]


@pytest.mark.parametrize(
    ("grid", "tokens", "axes"),
    [((10,), (4,), 1), ((8, 9), (4, 4), 2), ((8,), (4, 4), 1), ((8, 8), (4, 4), 1)],
)
def test_tokens_that_do_not_divide_the_grid_are_refused(grid, tokens, axes):
    with pytest.raises(ValueError, match="does not divide"):
        TokenGrid(grid, tokens, (True,) * axes)


WALLED = TokenGrid((6, 8), (3, 2), (True, False))


def scores(layout: TokenGrid, first: list[list[float]], second: list[list[float]]) -> torch.Tensor:
    """Of one query and one key at pairs of positions."""
    query, key = torch.randn(2, 1, 8, generator=torch.Generator().manual_seed(0))
    left, right = (layout.rotation(torch.tensor(places), 8, 4) for places in (first, second))
    return (rotate(query, left) * rotate(key, right)).sum(dim=-1)


def test_between_walls_both_ends_are_told_apart_and_on_a_circle_they_are_one():
    here = [[0.3, 0.0]]
    circle, walls = ([[1.3, 0.0]], [[0.3, 1.0]])
    same = scores(WALLED, here, here)
    torch.testing.assert_close(scores(WALLED, here, circle), same)
    assert (scores(WALLED, here, walls) - same).abs() > 0.1
    torch.testing.assert_close(scores(WALLED, here, [[0.3, 2.0]]), same)


def test_a_score_depends_on_the_difference_of_positions_also_between_walls():
    first, second = [[0.1, 0.2], [0.5, 0.9]], [[0.4, 0.1], [0.2, 0.3]]
    moved = [[[x + 0.07, y + 0.3] for x, y in places] for places in (first, second)]
    torch.testing.assert_close(scores(WALLED, *moved), scores(WALLED, first, second), rtol=1e-5, atol=1e-5)


def test_rotations_of_tokens_between_walls_are_all_different():
    """The distances 0, 1, ... n - 1 along an axis, each in its own direction."""
    layout = TokenGrid((16,), (16,), (False,))
    tables = layout.token_rotation(8).transpose(0, 1).flatten(1)
    distances = torch.cdist(tables, tables) + 10 * torch.eye(16)
    assert distances.min() > 0.1


def test_walls_are_seen_where_there_are_some():
    assert TokenGrid((8,), (4,), (True,)).wall_feature_count == 0
    assert TokenGrid((8,), (4,), (True,)).wall_features(torch.rand(5, 1)).shape == (5, 0)
    both = TokenGrid((8, 8), (4, 4), (False, False))
    assert both.wall_feature_count == 2 * WALLED.wall_feature_count == 16
    places = torch.rand(50, 2, generator=torch.Generator().manual_seed(0))
    features = WALLED.wall_features(places)
    assert features.shape == (50, WALLED.wall_feature_count)
    k = torch.arange(1, 5)
    expected = torch.cat([(torch.pi * k * places[:, 1:]).sin(), (torch.pi * k * places[:, 1:]).cos()], dim=1)
    torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-5)
    along = places.clone()
    along[:, 0] = 0.5
    assert torch.equal(WALLED.wall_features(along), features), "nothing tells where on a circle a point lies"
    ends = WALLED.wall_features(torch.tensor([[0.0, 0.0], [0.0, 1.0]]))
    assert (ends[0] - ends[1]).abs().max() > 1
