"""Patches keep every point, in C order, in any number of axes."""

import pytest
import torch

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
    layout = TokenGrid(grid, tokens)
    fields = torch.randn(2, *grid, 3)
    patches = layout.patchify(fields)
    assert patches.shape == (2, layout.token_count, layout.patch_points * 3)
    assert torch.equal(unpatchify(layout, patches, 3), fields)


def test_a_token_sits_in_the_middle_of_its_patch():
    layout = TokenGrid((6, 8), (3, 2))
    centres = cell_centres(layout.grid).view(1, 6, 8, 2)
    means = layout.patchify(centres).view(layout.token_count, layout.patch_points, 2).mean(dim=1)
    torch.testing.assert_close(layout.token_positions(), means)


def test_cell_centres_lie_half_a_cell_inside():
    assert cell_centres((4,)).flatten().tolist() == [0.125, 0.375, 0.625, 0.875]
    assert cell_centres((2, 2)).tolist() == [[0.25, 0.25], [0.25, 0.75], [0.75, 0.25], [0.75, 0.75]]


@pytest.mark.parametrize(("grid", "tokens"), [((10,), (4,)), ((8, 9), (4, 4)), ((8,), (4, 4))])
def test_tokens_that_do_not_divide_the_grid_are_refused(grid, tokens):
    with pytest.raises(ValueError, match="does not divide"):
        TokenGrid(grid, tokens)
