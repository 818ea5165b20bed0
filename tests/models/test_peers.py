"""The peers of the operator: networks on points, each against an answer that is known.

A published table had a baseline whose layers' output was never used: a peer that loses must have been able to win.
"""

from dataclasses import replace

import pytest
import torch
from tiny import LINE, PROBLEM, SQUARE, optimizer_of, waves
from torch import Tensor, nn

from ups.config.model import OPERATORS
from ups.data.batch import Batch
from ups.models.build import build_model
from ups.models.codec import Codec
from ups.models.evolution import Evolution, rollout
from ups.models.operators import network_of
from ups.models.shape import ProblemShape
from ups.training.matrices import hidden_matrices
from ups.training.objectives.operator import RolloutLoss

POINTS = replace(LINE, tokens=LINE.grid)
PLANE = replace(SQUARE, tokens=SQUARE.grid, boundary="periodic")
"""A map declared periodic: no published problem has two periodic axes, and networks do not mind."""
WALLS = replace(SQUARE, tokens=SQUARE.grid)

SIZES = {
    "fno": {"kind": "fno", "width": 16, "depth": 2, "modes": 16},
    "unet": {"kind": "unet", "width": 8, "depth": 1, "levels": 2},
    "dilated_resnet": {"kind": "convolution", "width": 16, "dilations": (1, 2, 4, 2, 1)},
}
NAMES = list(SIZES)


def network(name: str, shape: ProblemShape, *, values: int = 1, **changes) -> nn.Module:
    """A fresh peer on the points of a shape."""
    torch.manual_seed(0)
    settings = OPERATORS[SIZES[name]["kind"]](**SIZES[name] | changes)
    sizes = settings.model_dump(exclude={"linear_path", "conserve"})
    return network_of(sizes, {PROBLEM: shape}, inputs=values, outputs=values, extra_scalars=0)


def with_random_output(model: nn.Module) -> nn.Module:
    """Fresh networks have a zero projection, behind which mistakes would hide."""
    nn.init.normal_(model.get_submodule("output").weight)
    return model


def field(shape: ProblemShape, *, values: int = 1, seed: int = 0) -> Tensor:
    """Noise [2, *tokens, values]."""
    return torch.randn(2, *shape.tokens, values, generator=torch.Generator().manual_seed(seed))


def through(model: nn.Module, x: Tensor, shape: ProblemShape) -> Tensor:
    """A network on a field [B, *tokens, values]."""
    return model(x.flatten(1, -2), torch.zeros(len(x), shape.scalars), PROBLEM).view(x.shape)


@pytest.mark.parametrize("shape", [POINTS, PLANE, WALLS], ids=["line", "plane", "walls"])
@pytest.mark.parametrize("name", NAMES)
def test_a_fresh_peer_is_persistence(name, shape):
    x = field(shape)
    assert through(network(name, shape), x, shape).abs().max() == 0
    assert through(with_random_output(network(name, shape)), x, shape).abs().max() > 0


@pytest.mark.parametrize("shape", [POINTS, PLANE], ids=["line", "plane"])
@pytest.mark.parametrize(("name", "least"), [("fno", 1), ("unet", 4), ("dilated_resnet", 1)])
def test_on_periodic_domains_a_peer_commutes_with_shifts(name, least, shape):
    """By any number of points; a U-Net by as many as are one on its coarsest level."""
    model, x = with_random_output(network(name, shape)), field(shape)
    axes = tuple(range(1, x.ndim - 1))
    shifts = tuple(least * (1 + axis) for axis in axes)
    moved = through(model, x.roll(shifts, axes), shape)
    torch.testing.assert_close(moved, through(model, x, shape).roll(shifts, axes), rtol=1e-4, atol=1e-5)
    if least > 1:
        one = through(model, x.roll(1, 1), shape)
        assert (one - through(model, x, shape).roll(1, 1)).abs().max() > 1e-2


@pytest.mark.parametrize("name", NAMES)
def test_between_walls_a_peer_knows_where_it_is(name):
    model, x = with_random_output(network(name, WALLS)), field(WALLS)
    moved = through(model, x.roll(4, 1), WALLS)
    assert (moved - through(model, x, WALLS).roll(4, 1)).abs().max() > 1e-2


@pytest.mark.parametrize("shape", [POINTS, PLANE, WALLS], ids=["line", "plane", "walls"])
@pytest.mark.parametrize("name", NAMES)
def test_every_weight_of_a_peer_counts(name, shape):
    """No layer's output is dropped on the way."""
    model = with_random_output(network(name, shape))
    x = field(shape).flatten(1, -2)
    model(x, torch.ones(len(x), shape.scalars), PROBLEM).square().sum().backward()
    unused = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert unused == []


@pytest.mark.parametrize(("name", "reach"), [("fno", 16), ("unet", 16), ("dilated_resnet", 10)])
def test_how_far_a_peer_sees(name, reach):
    """Of 32 periodic points: all, or as far as the dilations add up to."""
    model, x = with_random_output(network(name, POINTS)), field(POINTS)
    other = x.clone()
    other[:, 0] += 1.0
    change = (through(model, other, POINTS) - through(model, x, POINTS)).abs().amax(dim=(0, 2))
    distance = torch.minimum(torch.arange(32), 32 - torch.arange(32))
    assert change[distance <= reach].min() > 1e-6
    assert change[distance > reach].sum() == 0


@pytest.mark.parametrize("axes", [1, 2])
def test_a_fourier_operator_with_weights_set_by_hand_is_an_exact_shift(axes):
    """u(x) to u(x - d) - u(x), d no whole number of points: the multiplier exp(-i k d) - 1, and gelu(x) - gelu(-x) = x.

    d is along the last axis.
    """
    shape, d, highest = {1: POINTS, 2: PLANE}[axes], 0.3, 5
    model = network("fno", shape, width=4, depth=1, modes=16)
    x = (torch.arange(shape.grid[-1]) + 0.5) * 2 * torch.pi / shape.grid[-1]
    wave = torch.arange(1, highest + 1)[:, None]
    amplitude, phase = torch.rand(2, highest, 1, generator=torch.Generator().manual_seed(0))

    def u(moved: float) -> Tensor:
        line = 0.7 + (amplitude * (wave * (x - moved) + 6 * phase).sin()).sum(0)
        if axes == 1:
            return line[None, :, None]
        y = torch.arange(shape.grid[0]) * 2 * torch.pi / shape.grid[0]
        return ((1 + y.cos() + (2 * y).sin())[:, None] * line)[None, ..., None]

    split = torch.tensor([1.0, -1.0])
    (layer,) = model.get_submodule(f"bodies.axes_{axes}.blocks").children()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.lift[0].weight[:2, 0] = split
        model.lift[2].weight[0, :2] = split
        k = torch.arange(9)
        multiplier = torch.view_as_real(torch.polar(torch.ones(9), -k * d) - 1)
        layer.spectral.weight[..., 0, 0, :] = multiplier
        layer.inner.weight[:2, 0] = split
        layer.outer.weight[0, :2] = split
        model.projection[0].weight[:2, 0] = split
        model.output.weight[0, :2] = split
    torch.testing.assert_close(u(0.0) + through(model, u(0.0), shape), u(d), rtol=0, atol=1e-5)


def identity(weight: Tensor, first: int = 0) -> None:
    """A linear map [outputs, inputs] that takes its inputs from one on as they are, and no others."""
    weight[:, first : first + len(weight)] = torch.eye(*weight[:, first : first + len(weight)].shape)


@pytest.mark.parametrize("way", ["skip", "pooled", "folded"])
@pytest.mark.parametrize("shape", [POINTS, PLANE], ids=["line", "plane"])
def test_a_u_net_with_weights_set_by_hand_is_the_identity_or_the_mean_of_neighbours(shape, way):
    """By its skip connection alone; by its coarse level alone, with neighbours' mean in one channel, or each in its own."""
    axes = len(shape.tokens)
    model = network("unet", shape, depth=1, levels=1)
    down, up = (model.get_submodule(f"bodies.axes_{axes}.{part}.0") for part in ("down", "up"))
    width, neighbours = SIZES["unet"]["width"], 2**axes
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.lift.weight[0, 0] = model.output.weight[0, 0] = 1
        identity(up.join.weight, first=width if way == "skip" else 0)
        for place in range(0 if way == "skip" else neighbours):
            coarse, share = (0, 1 / neighbours) if way == "pooled" else (place, 1.0)
            down.merge.weight[coarse, place * width] = share
            up.split.weight[place * width, coarse] = 1
    x = field(shape)
    expected = x
    if way == "pooled":
        pool = nn.functional.avg_pool1d if axes == 1 else nn.functional.avg_pool2d
        mean = pool(x.movedim(-1, 1), 2)
        expected = nn.functional.interpolate(mean, scale_factor=2).movedim(1, -1)
    torch.testing.assert_close(through(model, x, shape), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dilations", [(1,), (3,), (1, 4)])
@pytest.mark.parametrize("shape", [POINTS, PLANE], ids=["line", "plane"])
def test_a_dilated_network_with_weights_set_by_hand_is_a_shift(shape, dilations):
    """By as many points as its dilations add up to, around the end of the last axis; gelu(x) - gelu(-x) = x."""
    axes, width = len(shape.tokens), 8
    model = network("dilated_resnet", shape, width=width, dilations=dilations)
    before = (3**axes - 3) // 2 * width  # of the shifted copies, that of the token before along the last axis
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.lift.weight[0, 0] = 1
        for place, layer in enumerate(model.get_submodule(f"bodies.axes_{axes}.convolutions").children()):
            source = 2 * place - 1
            for sign, target in ((1.0, 2 * place + 1), (-1.0, 2 * place + 2)):
                if place == 0:
                    layer.kernel.weight[target, before] = sign
                else:
                    layer.kernel.weight[target, before + source] = sign
                    layer.kernel.weight[target, before + source + 1] = -sign
        last = 2 * len(dilations) - 1
        model.output.weight[0, last], model.output.weight[0, last + 1] = 1, -1
    x = field(shape)
    expected = x.roll(sum(dilations), dims=-2)
    torch.testing.assert_close(through(model, x, shape), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [POINTS, PLANE], ids=["line", "plane"])
def test_the_fourier_operator_is_that_of_neuraloperator(shape):
    """Weight by weight, without the package's grid embedding."""
    package = pytest.importorskip("neuralop.models", reason="pip install 'universal-physics-stack[peers]'")
    axes, values = len(shape.tokens), 2
    theirs = package.FNO(
        n_modes=(16,) * axes,
        in_channels=values,
        out_channels=values,
        hidden_channels=12,
        n_layers=3,
        positional_embedding=None,
    )
    ours = network("fno", shape, values=values, width=12, depth=3, modes=16, padding=0)

    def copy(linear: nn.Module, convolution: nn.Module) -> None:
        linear.weight.copy_(convolution.weight.flatten(1))
        if linear.bias is not None:
            linear.bias.copy_(convolution.bias)

    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, dtype=parameter.dtype, generator=generator))
        for parameter in ours.get_submodule("condition").parameters():
            parameter.zero_()
        copy(ours.lift[0], theirs.lifting.fcs[0])
        copy(ours.lift[2], theirs.lifting.fcs[1])
        copy(ours.projection[0], theirs.projection.fcs[0])
        copy(ours.output, theirs.projection.fcs[1])
        blocks = theirs.fno_blocks
        for place, layer in enumerate(ours.get_submodule(f"bodies.axes_{axes}.blocks").children()):
            copy(layer.skip, blocks.fno_skips[place].conv)
            copy(layer.inner, blocks.channel_mlp[place].fcs[0])
            copy(layer.outer, blocks.channel_mlp[place].fcs[1])
            layer.gate.copy_(blocks.channel_mlp_skips[place].weight.flatten())
            kernel = torch.view_as_real(blocks.convs[place].weight.tensor)
            layer.spectral.weight.copy_(kernel.movedim((0, 1), (-3, -2)))
            layer.spectral.bias.copy_(blocks.convs[place].bias.flatten())
        x = field(shape, values=values)
        expected = theirs(x.movedim(-1, 1)).movedim(1, -1)
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(through(ours, x, shape), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "optimizer",
    [
        pytest.param({"kind": "adamw"}, id="adamw"),
        pytest.param(
            {"kind": "muon", "matrix_learning_rate": 0.02, "momentum": 0.95},
            id="muon",
            marks=[pytest.mark.slow, pytest.mark.long],
        ),
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_a_peer_learns_a_batch_by_heart(name, optimizer):
    """Eight trajectories through the objective of the race, by the optimisers of the race."""
    shared = {"problems": {PROBLEM: POINTS.to_json()}, "latent_dim": 1}
    empty = {"width": 4, "depth": 0, "heads": 1, "ratio": 1}
    codec = build_model(shared | {"kind": "codec", "encoder": empty, "decoder": empty})
    assert isinstance(codec, Codec)
    torch.manual_seed(0)
    sizes = OPERATORS[SIZES[name]["kind"]](**SIZES[name]).model_dump(exclude={"linear_path", "conserve"})
    model = build_model(
        shared
        | {
            "kind": "operator",
            "network": sizes,
            "linear_path": {},
            "conserve": False,
            "time_steps": [1],
            "average": {},
        }
    )
    fields = waves(8, 3)
    batch = Batch(problem=PROBLEM, scalars=torch.zeros(8, POINTS.scalars), fields=fields, latents=None)
    objective = RolloutLoss(codec, {PROBLEM: Evolution(0.05, {"nu": 0.01})}, rollout_steps=2)
    trained = optimizer_of(model, learning_rate=5e-3, betas=(0.9, 0.95), weight_decay=0.0, **optimizer)
    losses = []
    for step in range(200):
        for group in trained.param_groups:
            group["lr"] = 5e-3 * (1 - step / 200) * group["rate"]
        loss = objective(model, batch, torch.Generator().manual_seed(0)).total
        trained.zero_grad()
        loss.backward()
        trained.step()
        losses.append(loss.item())
    assert losses[0] > 0.3  # persistence
    assert losses[-1] < losses[0] / 5
    forecast = rollout(lambda z: model(z, batch.scalars, PROBLEM), fields[:, 0], 2)
    assert (forecast - fields[:, 1:]).norm() < 0.2 * fields[:, 1:].norm()


@pytest.mark.parametrize("name", NAMES)
def test_muon_trains_what_lies_between_hidden_channels(name):
    """Not the maps in and out, nor a Fourier operator's matrices per wave number."""
    model = network(name, POINTS)
    hidden = {id(parameter) for parameter in hidden_matrices(dict(model.named_parameters()))}
    names = {key for key, parameter in model.named_parameters() if id(parameter) in hidden}
    assert names
    assert not [key for key in names if key.startswith(("lift", "output", "projection", "condition"))]
    outside = [key for key, p in model.named_parameters() if id(p) not in hidden and p.ndim == 2]
    assert all(key.startswith(("lift", "output", "projection", "condition")) for key in outside)
