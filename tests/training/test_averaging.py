"""Forecasts averaged over a symmetry group: exact whatever the weights, and doubtful where its elements disagree."""

import itertools
from dataclasses import replace

import pytest
import torch
from tiny import LINE, PROBLEM, SQUARE, build, fresh, waves
from torch import Tensor

from ups.config.model import SYMMETRIES, SymmetryUses
from ups.models.codec import Codec, ProblemCodec
from ups.models.evolution import advance, forecast
from ups.models.operators import LatentOperator
from ups.models.reference_frame import ReferenceFrame
from ups.models.shape import ProblemShape

EMPTY = {"width": 4, "depth": 0, "heads": 1, "ratio": 1}


def bound(shape: ProblemShape) -> ProblemCodec:
    """A lossless codec with a mean and a deviation of its own."""
    values = shape.token_grid.patch_points * shape.channels
    codec = fresh("codec", shapes={PROBLEM: shape}, latent_dim=values, encoder=EMPTY, decoder=EMPTY)
    assert isinstance(codec, Codec)
    generator = torch.Generator().manual_seed(5)
    for value in codec.of(PROBLEM).statistics.buffers():
        value.uniform_(0.5, 1.5, generator=generator)
    return codec.of(PROBLEM)


def operator(shape: ProblemShape, *symmetries: str, kind: str = "transformer") -> LatentOperator:
    sizes = (
        {"width": 16, "depth": 1, "heads": 2, "ratio": 2}
        if kind == "transformer"
        else {"width": 16, "dilations": [1, 2]}
    )
    model = build(
        "operator",
        shapes={PROBLEM: shape},
        latent_dim=shape.token_grid.patch_points * shape.channels,
        network={"kind": kind} | sizes,
        average={PROBLEM: list(symmetries)},
        scale=0.1,
    )
    assert isinstance(model, LatentOperator)
    return model.requires_grad_(False)


def states(codec: ProblemCodec, fields: Tensor) -> Tensor:
    """Latents [n, K, d] of fields [n, *grid, C]."""
    rest, known = ReferenceFrame.at_rest(codec.shape, fields), None
    if codec.shape.partly_known:
        known = torch.tensor([field.given for field in codec.shape.fields]).expand(len(fields), 1, -1)
    return codec.encode(fields[:, None], torch.zeros(1), rest, known)[:, 0]


def forecast_fields(model: LatentOperator, codec: ProblemCodec, fields: Tensor, frames: int) -> Tensor:
    scalars = torch.zeros(len(fields), codec.shape.scalars)
    return codec.fields(forecast(model, codec, states(codec, fields), scalars, frames).mean)


@pytest.mark.parametrize("kind", ["transformer", "convolution"])
def test_shifts_by_any_point_and_reflection_are_exact(kind):
    codec, model = bound(LINE), operator(LINE, "shift", "reflection", kind=kind)
    plain = operator(LINE, kind=kind)
    fields = 0.3 + waves(3, 1)[:, 0]
    expected = forecast_fields(model, codec, fields, 4)
    for points in (1, 3, 7):
        turned = forecast_fields(model, codec, fields.roll(points, dims=1), 4)
        torch.testing.assert_close(turned, expected.roll(points, dims=2), rtol=1e-3, atol=1e-4)
    mirrored = forecast_fields(model, codec, -fields.flip(1), 4)
    torch.testing.assert_close(mirrored, -expected.flip(2), rtol=1e-3, atol=1e-4)
    broken = forecast_fields(plain, codec, -fields.flip(1), 4) + forecast_fields(
        plain, codec, fields, 4
    ).flip(2)
    assert broken.abs().max() > 0.01, "the weights do not obey"


def test_the_eight_of_the_square_are_exact():
    shape = replace(SQUARE, grid=(8, 8), tokens=(4, 4))
    codec, model = bound(shape), operator(shape, "square")
    fields = torch.rand(2, 8, 8, 2, generator=torch.Generator().manual_seed(2))
    expected = forecast_fields(model, codec, fields, 1)
    for turn in (
        lambda x: x.flip(-3),
        lambda x: x.flip(-2),
        lambda x: x.transpose(-3, -2),
        lambda x: x.rot90(1, (-3, -2)),
    ):
        torch.testing.assert_close(
            forecast_fields(model, codec, turn(fields), 1), turn(expected), rtol=1e-3, atol=1e-4
        )


def test_it_is_the_mean_of_the_elements_forecasts_and_their_variance_by_hand():
    codec, model = bound(LINE), operator(LINE, "shift", "reflection")
    fields = 0.3 + waves(2, 1)[:, 0]
    scalars = torch.zeros(2, 2)
    members = []
    for points, mirrored in itertools.product(range(4), (False, True)):
        turned = fields.roll(-points, dims=1)
        turned = -turned.flip(1) if mirrored else turned
        rolled = codec.fields(advance(model, states(codec, turned), scalars, PROBLEM, 3))
        rolled = -rolled.flip(2) if mirrored else rolled
        members.append(rolled.roll(points, dims=2))
    found = forecast(model, codec, states(codec, fields), scalars, 3)
    torch.testing.assert_close(
        codec.fields(found.mean), torch.stack(members).mean(dim=0), rtol=1e-4, atol=1e-5
    )
    rest = ReferenceFrame.at_rest(LINE, fields)
    latents = torch.stack([codec.encode(member, torch.zeros(3), rest) for member in members])
    torch.testing.assert_close(
        found.variance, latents.var(dim=0).mean(dim=-1, keepdim=True), rtol=1e-2, atol=1e-6
    )


def test_without_symmetries_it_is_one_forecast_without_variance():
    codec, model = bound(LINE), operator(LINE)
    first, scalars = states(codec, waves(2, 1)[:, 0]), torch.zeros(2, 2)
    found = forecast(model, codec, first, scalars, 3)
    assert torch.equal(found.mean, advance(model, first, scalars, PROBLEM, 3))
    assert not found.variance.any()


def test_a_group_has_every_element_once():
    line, square = torch.zeros(1, 32, 1), torch.zeros(1, 16, 16, 2)
    assert len(ReferenceFrame.group(LINE, line, ())) == 1
    assert len(ReferenceFrame.group(LINE, line, ("shift",))) == 4  # points of a token
    assert len(ReferenceFrame.group(LINE, line, ("shift", "reflection"))) == 8
    assert len(ReferenceFrame.group(SQUARE, square, ("square",))) == 8
    values = torch.rand(1, 1, 16, 16, 2)
    turned = [
        frame.enter(values, torch.zeros(1)) for frame in ReferenceFrame.group(SQUARE, square, ("square",))
    ]
    assert torch.equal(turned[0], values)
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(turned, 2))


@pytest.mark.parametrize("name", SYMMETRIES)
def test_only_finite_groups_can_be_averaged_over(name):
    if name in {"shift", "reflection", "square"}:
        uses = SymmetryUses(**{name: "average"})
        assert uses.used("augment", "average") == uses.used("average") == (name,)
        return
    with pytest.raises(
        ValueError, match=f"{name}: average needs a finite number of elements.*write augment or exact"
    ):
        SymmetryUses(**{name: "average"})


def test_elements_that_hardly_differ_have_a_variance_of_their_own():
    """Differences of thousandths, whose squares are lost in those of the forecasts."""
    codec, model = bound(LINE), operator(LINE, "reflection", kind="convolution")
    plain = operator(LINE, kind="convolution")
    with torch.no_grad():
        for one in (model, plain):
            for parameter in one.get_submodule("network.output").parameters():
                parameter.mul_(1e-4)
    fields = 0.3 + waves(3, 1)[:, 0]
    scalars = torch.zeros(3, codec.shape.scalars)
    found = forecast(model, codec, states(codec, fields), scalars, 2).variance
    there, double = (
        ReferenceFrame.group(codec.shape, fields[:1], ("reflection",))[1].repeat(3),
        model.double(),
    )
    first = states(codec, fields)
    one = advance(plain.double(), first.double(), scalars.double(), PROBLEM, 2)
    start = codec.encode(fields[:, None], torch.zeros(1), there)[:, 0]
    turned = advance(double, start.double(), scalars.double(), PROBLEM, 2).float()
    turned = codec.encode(
        there.leave(codec.fields(turned), torch.zeros(2)), torch.zeros(2), there.at_rest(codec.shape, fields)
    )
    expected = ((one.float() - turned).square() / 2).mean(dim=-1, keepdim=True)
    assert 1e-8 < expected.mean() < 1e-6
    torch.testing.assert_close(found, expected, rtol=0.05, atol=1e-9)
