"""Every kind of operator on a line and on a square: where it starts, what it knows, and that it learns."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny import LATENT_DIM, LINE, SQUARE, build, fresh
from torch import Tensor, nn

from ups.config.model import OPERATORS
from ups.models.embedding import module_key
from ups.models.operators.convolution import ResidualConvolutions, TokenConvolution
from ups.models.shape import ProblemShape
from ups.models.transformer import Block

KINDS: dict[str, dict[str, Any]] = {
    "transformer": {"width": 16, "depth": 1, "heads": 2, "ratio": 2},
    "convolution": {"width": 16, "dilations": [1, 2]},
    "pdet_unet": {"width": 16, "depth": 1, "levels": 1, "heads": 2, "ratio": 2},
    "hybrid": {"width": 16, "dilations": [1, 2], "heads": 2, "ratio": 2},
    "ffno": {"width": 16, "depth": 2, "modes": 4},
}
NETWORKS = {kind: {"kind": kind} | sizes for kind, sizes in KINDS.items()} | {
    "windows": {"kind": "transformer", "window": 2} | KINDS["transformer"] | {"depth": 2},
    "hybrid windows": {"kind": "hybrid", "window": 4} | KINDS["hybrid"],
    "unet windows": {"kind": "pdet_unet", "window": 2} | KINDS["pdet_unet"],
    "channels": {"kind": "transformer", "channel_separated": True} | KINDS["transformer"],
}
TOGETHER = {"pdet_unet": 2, "windows": 2, "hybrid windows": 4, "unet windows": 4}
"""Tokens by which a state must be shifted for its step to be shifted too, where it is not one."""
SHEET = replace(SQUARE, boundary="periodic")
SHAPES = {"line": LINE, "square": SQUARE, "sheet": SHEET}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def states(shape: ProblemShape, count: int = 3, seed: int = 0) -> Tensor:
    return normal(count, shape.token_grid.token_count, LATENT_DIM, seed=seed)


def scalars_of(shape: ProblemShape, count: int = 3) -> Tensor:
    return torch.linspace(-4, -2, shape.scalars).expand(count, -1)


def made(kind: str, name: str, **changes: Any) -> nn.Module:
    return build("operator", shapes={name: SHAPES[name]}, network=NETWORKS[kind], **changes)


def test_all_kinds_are_here():
    """Those that others brought have their own file."""
    assert OPERATORS.keys() - {"linear", "fno", "unet"} == KINDS.keys()


@pytest.mark.parametrize("linear_path", ["none", "trained", "frozen"])
@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("kind", NETWORKS)
def test_a_fresh_operator_is_persistence_or_the_best_linear_map(kind, name, linear_path):
    shape = SHAPES[name]
    model = fresh("operator", shapes={name: shape}, network=NETWORKS[kind], linear_path=linear_path)
    z = states(shape)
    assert torch.equal(model(z, scalars_of(shape), name), z)
    fitted = model.get_buffer(f"linear.{module_key(name)}.fitted")
    fitted.copy_(0.1 * normal(*fitted.shape, seed=5))
    step = model(z, scalars_of(shape), name)
    if linear_path == "none":
        assert torch.equal(step, z), "fitted for the table alone"
    else:
        assert (step - z).abs().max() > 0.1
        assert torch.equal(step, model.linear_step(z, name))


def test_a_linear_path_alone_has_no_network_beside_it():
    model = made("convolution", "line", linear_path="alone").requires_grad_(False)
    z = states(LINE)
    assert torch.equal(model(z, scalars_of(LINE), "line"), model.linear_step(z, "line"))
    assert not torch.equal(model(z, scalars_of(LINE), "line"), z)


@pytest.mark.parametrize("conserve", [False, True, "fluxes"])
@pytest.mark.parametrize(
    ("name", "shift"), [("line", (3,)), ("sheet", (1, 0)), ("sheet", (0, 3)), ("sheet", (2, 1))]
)
@pytest.mark.parametrize("kind", NETWORKS)
def test_on_a_circle_a_step_commutes_with_shifts_of_tokens(kind, name, shift, conserve):
    """Of a network of halved tokens with shifts of what its coarsest token holds, of windows with those of windows."""
    shape, together = SHAPES[name], TOGETHER.get(kind, 1)
    shift = tuple(together * n for n in shift)
    model = made(kind, name, linear_path="trained", conserve=conserve).requires_grad_(False)
    z, axes = states(shape), tuple(range(1, 1 + len(shape.tokens)))

    def rolled(tokens: Tensor) -> Tensor:
        return tokens.unflatten(1, shape.tokens).roll(shift, dims=axes).flatten(1, -2)

    step = model(z, scalars_of(shape), name)
    assert step.std(dim=1).mean() > 0.1
    found = model(rolled(z), scalars_of(shape), name)
    torch.testing.assert_close(found, rolled(step), rtol=1e-4, atol=1e-4 * step.abs().max().item())


@pytest.mark.parametrize("kind", NETWORKS)
def test_between_walls_a_step_does_not(kind):
    model = made(kind, "square").requires_grad_(False)
    z = states(SQUARE)
    for axis in (1, 2):
        rolled = [
            tokens.unflatten(1, (4, 4)).roll(1, dims=axis).flatten(1, 2)
            for tokens in (z, model(z, scalars_of(SQUARE), "square"))
        ]
        assert (model(rolled[0], scalars_of(SQUARE), "square") - rolled[1]).abs().max() > 1e-2


@pytest.mark.parametrize("name", ["line", "square"])
@pytest.mark.parametrize("kind", NETWORKS)
def test_a_step_depends_on_each_of_its_scalars_and_each_sample_on_its_own(kind, name):
    shape = SHAPES[name]
    model = made(kind, name).requires_grad_(False)
    z = states(shape, 1).expand(3, -1, -1)
    for place in range(shape.scalars):
        scalars = scalars_of(shape).clone()
        scalars[1, place] += 1
        first, second, third = model(z, scalars, name)
        torch.testing.assert_close(first, third, rtol=1e-5, atol=1e-5)
        assert (first - second).abs().max() > 1e-2


@pytest.mark.parametrize("kind", NETWORKS)
def test_one_network_serves_both_numbers_of_axes(kind):
    both = {"line": LINE, "square": SQUARE}
    model = build("operator", shapes=both, network=NETWORKS[kind]).requires_grad_(True)
    for name, shape in both.items():
        model.zero_grad()
        model(states(shape), scalars_of(shape), name).square().sum().backward()
        used = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
        idle = {n for n, p in model.named_parameters()} - used
        other = "square" if name == "line" else "line"
        number = 2 if name == "line" else 1
        of_others = (
            f".{module_key(other)}.", f".scalars.{both[other].equation}.", f".axes_{number}",
            *(f".{part}.{level}.{number}." for part in ("merge", "split") for level in range(1)),
        )  # fmt: skip
        unexplained = {n for n in idle if not any(part in n for part in of_others)}
        assert unexplained == set()


@pytest.mark.parametrize("name", ["line", pytest.param("square", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", NETWORKS)
def test_it_learns_eight_steps_by_heart(kind, name):
    shape = SHAPES[name]
    torch.manual_seed(0)
    model = fresh("operator", shapes={name: shape}, network=NETWORKS[kind])
    # A step to a neighbour's state and a bend: no pointwise map and no linear one.
    before = states(shape, 8)
    target = before + 0.3 * before.roll(1, dims=1).tanh()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(150):
        loss = (model(before, scalars_of(shape, 8), name) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx((target - before).square().mean().item())
    assert losses[-1] < losses[0] / 10


# --- windows --------------------------------------------------------------------------------------


def test_windows_of_the_second_block_hand_on_what_those_of_the_first_saw():
    model = made("windows", "line").requires_grad_(False)
    z, other = states(LINE, 1), states(LINE, 1)
    other[:, 0] += 1
    changed = (model(z, scalars_of(LINE, 1), "line") - model(other, scalars_of(LINE, 1), "line")).abs()
    assert (changed.amax(dim=(0, 2)) > 1e-4).nonzero().flatten().tolist() == [0, 1, 2, 7]


@pytest.mark.parametrize(
    ("kind", "shifted"),
    [
        ("windows", [False, True]),
        ("hybrid windows", [False, True]),
        ("unet windows", [False, False, True]),
    ],
)
def test_every_other_block_of_a_level_is_shifted(kind, shifted):
    """Of a U-Net's levels: down, the one in the middle, and up."""
    model = made(kind, "line")
    names = ("blocks", "down", "middle", "up")
    blocks = {name: block for name, block in model.named_modules() if isinstance(block, Block)}
    ordered = [block for part in names for name, block in blocks.items() if part in name.split(".")]
    assert [block.shifted for block in ordered] == shifted


# --- convolution ----------------------------------------------------------------------------------


@pytest.mark.parametrize("boundary", ["periodic", "outflow", "dirichlet"])
@pytest.mark.parametrize("dilation", [1, 2, 3])
@pytest.mark.parametrize("tokens", [(6,), (4, 5), (3,)])
def test_a_convolution_is_torchs_with_the_padding_of_its_boundary(tokens, dilation, boundary):
    axes, width = len(tokens), 3
    torch.manual_seed(0)
    convolution = TokenConvolution(axes, width, dilation).requires_grad_(False)
    nn.init.normal_(convolution.kernel.bias)
    x = normal(*tokens, 2, width)
    mode = {"periodic": "circular", "outflow": "replicate", "dirichlet": "constant"}[boundary]
    plain = x.movedim((-2, -1), (0, 1))
    padded = nn.functional.pad(plain, (dilation,) * (2 * axes), mode=mode)
    kernel = convolution.kernel.weight.view(width, *(3,) * axes, width).movedim(-1, 1)
    function = nn.functional.conv1d if axes == 1 else nn.functional.conv2d
    expected = function(padded, kernel, convolution.kernel.bias, dilation=dilation)
    torch.testing.assert_close(
        convolution(x, boundary), expected.movedim((0, 1), (-2, -1)), rtol=1e-5, atol=1e-5
    )


def test_modulation_gives_every_convolution_a_factor_and_a_shift():
    """None at first; with factors of zero each adds its activated shift, whatever the state."""
    torch.manual_seed(0)
    layers = ResidualConvolutions(1, width=4, dilations=[1, 2], modulated=True).requires_grad_(False)
    x, condition = normal(5, 3, 4), normal(3, 4, seed=1)
    plain = ResidualConvolutions(1, width=4, dilations=[1, 2]).requires_grad_(False)
    plain.load_state_dict({name: w for name, w in layers.state_dict().items() if "modulation" not in name})
    assert torch.equal(layers(x, "periodic", condition), plain(x, "periodic", condition))
    assert layers.modulation is not None
    factors_and_shifts = layers.modulation.bias.view(2, 2, 4)
    factors_and_shifts[:, 0], factors_and_shifts[:, 1] = -1.0, 0.3
    moved = x + 2 * torch.nn.functional.gelu(torch.tensor(0.3), approximate="tanh")
    torch.testing.assert_close(layers(x, "periodic", condition), moved)
    torch.nn.init.normal_(layers.modulation.weight)
    change = layers(x, "periodic", condition) - layers(x, "periodic", condition + 1)
    assert (change.abs() > 1e-4).all()
