"""Attention within windows and of separated channels is full attention with most scores and weights struck out."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ups.models.embedding import PositionEmbedding
from ups.models.token_grid import TokenGrid
from ups.models.transformer import Attention, Block

WIDTH, HEADS = 16, 2
GRIDS = {
    "circle": TokenGrid((24,), (12,), (True,)),
    "line": TokenGrid((24,), (12,), (False,)),
    "sheet": TokenGrid((8, 16), (4, 8), (True, True)),
    "square": TokenGrid((8, 16), (4, 8), (False, False)),
    "pipe": TokenGrid((8, 16), (4, 8), (True, False)),
}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def attention(*, channel_separated: bool = False) -> Attention:
    """Also the gains are random."""
    made = Attention(WIDTH, HEADS, channel_separated=channel_separated).requires_grad_(False)
    for seed, parameter in enumerate(made.parameters()):
        parameter.copy_(normal(*parameter.shape, seed=seed))
    return made


def allowed(grid: TokenGrid, window: int | None, shift: int) -> Tensor:
    """[K, K]: tokens are in the same window along every axis. At walls windows that stick out are cut off; one that holds
    a whole axis need not be shifted along it.
    """
    places = list(itertools.product(*map(range, grid.tokens)))

    def window_of(place: tuple[int, ...]) -> list[int]:
        several = [
            (at - shift, count, wraps)
            for at, count, wraps in zip(place, grid.tokens, grid.periodic, strict=True)
            if window is not None and count > window
        ]
        return [(at % count if wraps else at) // window for at, count, wraps in several]

    return torch.tensor([[window_of(one) == window_of(other) for other in places] for one in places])


def one_by_one(made: Attention, x: Tensor, grid: TokenGrid, mask: Tensor) -> Tensor:
    """Three products, two norms, pairs of channels as complex numbers, and the scores written out."""
    weights = made.projections.unflatten(0, (3, made.groups))
    q, k, v = (
        (x @ torch.block_diag(*heads).T).unflatten(-1, (HEADS, -1)).transpose(1, 2) for heads in weights
    )
    cosine, sine = grid.token_rotation(WIDTH // HEADS)
    half = WIDTH // HEADS // 2
    turn = torch.complex(cosine[:, half:], sine[:, half:])

    def turned(y: Tensor, norm: torch.nn.RMSNorm) -> Tensor:
        y = norm(y)
        pairs = torch.complex(y[..., :half], y[..., half:]) * turn
        return torch.cat([pairs.real, pairs.imag], dim=-1)

    scores = turned(q, made.query_norm) @ turned(k, made.key_norm).mT / math.sqrt(2 * half)
    y = scores.masked_fill(~mask, -math.inf).softmax(dim=-1) @ v
    return F.linear(y.transpose(1, 2).flatten(-2), made.output.weight)


@pytest.mark.parametrize("channel_separated", [False, True])
@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("window", [None, 2, 4])
@pytest.mark.parametrize("name", GRIDS)
def test_attention_is_that_of_one_product_after_the_other_with_a_mask(
    name, window, shifted, channel_separated
):
    grid, made = GRIDS[name], attention(channel_separated=channel_separated)
    windows = PositionEmbedding(grid, WIDTH, HEADS, window).windows(shifted=shifted)
    shift = window // 2 if window and shifted else 0
    mask = allowed(grid, window, shift)
    x = normal(3, grid.token_count, WIDTH, seed=9)
    assert mask.all() == (window is None)
    torch.testing.assert_close(made(x, windows), one_by_one(made, x, grid, mask), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("name", GRIDS)
def test_windows_are_joined_as_they_were_split(name, shifted):
    windows = PositionEmbedding(GRIDS[name], WIDTH, HEADS, 4).windows(shifted=shifted)
    x = normal(3, GRIDS[name].token_count, 5)
    parts = windows.split(x)
    assert parts.shape == (3, GRIDS[name].token_count // 4 ** GRIDS[name].axes, 4 ** GRIDS[name].axes, 5)
    assert torch.equal(windows.join(parts), x)


def test_windows_must_divide_the_tokens():
    with pytest.raises(ValueError, match=r"windows of 4 do not divide the tokens \(6,\)"):
        PositionEmbedding(TokenGrid((12,), (6,), (True,)), WIDTH, HEADS, 4)


@pytest.mark.parametrize("channel_separated", [False, True])
@pytest.mark.parametrize("name", ["line", "pipe"])
def test_gradients_are_those_of_differences(name, channel_separated):
    grid = TokenGrid((4,), (4,), (False,)) if name == "line" else TokenGrid((2, 4), (2, 4), (True, False))
    block = Block(8, 2, 1, conditioning=3, channel_separated=channel_separated, shifted=True).double()
    for seed, parameter in enumerate(block.parameters()):
        parameter.data.copy_(0.5 * normal(*parameter.shape, seed=seed))
    position = PositionEmbedding(grid, 8, 2, 2)
    assert position.visible is not None
    x, condition = normal(1, grid.token_count, 8).double(), normal(1, 3).double()

    def stepped(x: Tensor, condition: Tensor, *weights: Tensor) -> Tensor:
        given = dict(zip(names, weights, strict=True))
        return torch.func.functional_call(block, given, (x, position, condition))

    names = [name for name, _ in block.named_parameters() if "attention" in name]
    weights = [block.get_parameter(name).detach().requires_grad_() for name in names]
    assert torch.autograd.gradcheck(
        stepped, (x.requires_grad_(), condition.requires_grad_(), *weights), fast_mode=True
    )
