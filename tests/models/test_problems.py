"""Several problems in one network: what they share, what is a problem's own, and what walls change.

All weights are random, those of zero-initialised projections too.
"""

from dataclasses import replace
from typing import get_args

import pytest
import torch
from tiny import LATENT_DIM, LINE, SQUARE, build, decoded_frames, describe, encoded_frames, raw_residual
from torch import Tensor, nn

from ups.models.autoencoder import Autoencoder
from ups.models.build import build_model
from ups.models.codec import Codec
from ups.models.conditioning import ProblemConditioning
from ups.models.embedding import PatchEmbedding, module_key
from ups.models.forecast import Forecast
from ups.models.operators import LatentOperator
from ups.models.residual import ResidualNetwork
from ups.models.shape import ProblemShape
from ups.models.token_grid import cell_centres
from ups.problems import Boundary

CLOSE = {"rtol": 1e-5, "atol": 1e-5}
MIX = {"line": LINE, "square": SQUARE}
KINDS = ["autoencoder", "codec", "operator", "diffusion"]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def fields_of(shape: ProblemShape, count: int = 3) -> Tensor:
    return normal(count, *shape.grid, shape.channels)


def apply(model: nn.Module, problem: str, shape: ProblemShape) -> Tensor:
    """What a network of any kind makes of random numbers."""
    states = normal(3, 3, shape.token_grid.token_count, LATENT_DIM, seed=1)
    scalars = normal(3, shape.scalars, seed=2)
    match model:
        case Autoencoder():
            return model(fields_of(shape), cell_centres(shape.grid), problem)
        case Codec():
            codec = model.of(problem)
            return decoded_frames(codec, encoded_frames(codec, fields_of(shape)), cell_centres(shape.grid))
        case LatentOperator():
            return model(states[0], scalars, problem)
        case ResidualNetwork():
            leads = model.leads[problem]
            forecast, y = normal(2, 3, leads, shape.token_grid.token_count, LATENT_DIM, seed=4)
            raw = raw_residual(model, forecast, y, scalars, problem)
            return model.corrections(raw[:, None], Forecast.single(forecast), problem, 0)
    raise AssertionError(model)


def own(model: nn.Module, problem: str) -> list[str]:
    """Names of the tensors that only one problem of the mix has."""
    key, equation, axes = module_key(problem), MIX[problem].equation, len(MIX[problem].grid)
    return [
        name
        for name in model.state_dict()
        if key in name.split(".")
        or f".scalars.{equation}." in name
        or f".axes_{axes}." in name
        or name.endswith(f"_{key}")
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_a_problem_does_not_depend_on_the_weights_of_another(kind):
    model = build(kind, shapes=MIX).requires_grad_(False)
    before = {name: apply(model, name, shape) for name, shape in MIX.items()}
    for changed, other in (("line", "square"), ("square", "line")):
        model = build(kind, shapes=MIX).requires_grad_(False)
        names = own(model, changed)
        assert names
        for name in names:
            value = model.state_dict()[name]
            value.uniform_(1.6, 2.5) if value.is_floating_point() else value.logical_not_()
        assert torch.equal(apply(model, other, MIX[other]), before[other])
        assert (apply(model, changed, MIX[changed]) - before[changed]).abs().max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_a_problem_computes_the_same_alone_and_in_a_mix(kind):
    mix = build(kind, shapes=MIX).requires_grad_(False)
    single = build_model(describe(kind, {"square": SQUARE})).requires_grad_(False)
    single.load_state_dict({name: mix.state_dict()[name] for name in single.state_dict()})
    assert torch.equal(apply(single, "square", SQUARE), apply(mix, "square", SQUARE))


@pytest.mark.parametrize("kind", KINDS)
def test_the_shared_weights_serve_every_problem(kind):
    """Each shared parameter has a gradient from either problem: nothing of a mix is one problem's in disguise.

    The rows of the table of boundaries are the exception: a problem has one boundary.
    """
    model = build(kind, shapes=MIX).requires_grad_(True)
    common = [n for n in dict(model.named_parameters()) if n not in own(model, "line") + own(model, "square")]
    assert len(common) > (
        4 if kind == "diffusion" else 10
    )  # blocks of a diffusion model are of a number of axes
    for name, shape in MIX.items():
        model.zero_grad()
        apply(model, name, shape).square().sum().backward()
        idle = [
            n for n, p in model.named_parameters() if n in common and (p.grad is None or not p.grad.any())
        ]
        assert idle == []


@pytest.mark.parametrize("name", ["keys", "train", "values", "type", "forward", "pop", "a-b", "1d"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_problem_may_have_the_name_of_a_method(kind, name):
    renamed = build(kind, shapes={name: SQUARE}).requires_grad_(False)
    plain = build(kind, shapes={"square": SQUARE}).requires_grad_(False)
    assert torch.equal(apply(renamed, name, SQUARE), apply(plain, "square", SQUARE))


@pytest.mark.parametrize("kind", KINDS)
def test_a_problem_that_was_not_trained_is_an_error(kind):
    with pytest.raises(KeyError):
        apply(build(kind), "darcy2d", SQUARE)


def test_equations_are_told_apart_and_problems_of_one_equation_by_their_numbers_alone():
    """The same tokens and numbers of problems that agree in all but their names, or in all but their equation."""
    flow = replace(LINE, equation="compressible1d")
    air = {"one": LINE, "two": LINE, "other": flow}
    model = build("operator", shapes=air).requires_grad_(False)
    assert torch.equal(apply(model, "one", LINE), apply(model, "two", LINE))
    states, numbers = normal(3, 8, LATENT_DIM), normal(3, 3)
    here, there = model(states, numbers[:, :2], "one"), model(states, numbers, "other")
    assert (here - there).abs().max() > 1e-2
    assert (model(states, numbers[:, :2] + 1, "two") - here).abs().max() > 1e-2


def test_a_condition_is_the_equations_own_and_its_boundarys():
    shapes = {"one": LINE, "two": replace(LINE, boundary="outflow"), "three": SQUARE}
    torch.manual_seed(0)
    condition = ProblemConditioning(shapes, 8, extra_scalars=1).requires_grad_(False)
    assert set(condition.scalars) == {"burgers1d", "darcy2d"}
    scalars = {name: normal(2, shape.scalars + 1) for name, shape in shapes.items()}
    for changed, shape in shapes.items():
        before = {name: condition(scalars[name], name) for name in shapes}
        condition.boundary[get_args(Boundary).index(shape.boundary)] += 1.0
        for name in shapes:
            expected = before[name] + (1.0 if name == changed else 0.0)
            torch.testing.assert_close(condition(scalars[name], name), expected, **CLOSE)


# --- walls ----------------------------------------------------------------------------------------


def shifted_encodings(boundary: str, axis: int) -> tuple[Tensor, Tensor]:
    """Tokens of a field shifted by one patch along an axis, and the shifted tokens of the field."""
    shape = replace(SQUARE, boundary=boundary)
    encoder = build("autoencoder", shapes={"square": shape}).requires_grad_(False).encoder
    assert isinstance(encoder, nn.Module)
    fields = fields_of(shape)
    patch = shape.token_grid.patch[axis]
    moved = encoder(fields.roll(patch, dims=1 + axis), "square").view(3, 4, 4, LATENT_DIM)
    tokens = encoder(fields, "square").view(3, 4, 4, LATENT_DIM)
    return moved, tokens.roll(1, dims=1 + axis)


@pytest.mark.parametrize("axis", [0, 1])
def test_between_walls_a_place_is_a_place_and_without_them_it_is_not(axis):
    moved, expected = shifted_encodings("periodic", axis)
    torch.testing.assert_close(moved, expected, **CLOSE)
    for boundary in ("dirichlet", "outflow"):
        moved, expected = shifted_encodings(boundary, axis)
        assert (moved - expected).abs().max() > 0.05


@pytest.mark.parametrize("axis", [0, 1])
def test_equal_patches_are_equal_tokens_unless_there_are_walls(axis):
    """A constant field: without walls all tokens are alike, with them tokens know where they are."""
    for boundary, alike in (("periodic", True), ("dirichlet", False)):
        shape = replace(SQUARE, boundary=boundary)
        encoder = build("autoencoder", shapes={"square": shape}).requires_grad_(False).encoder
        assert isinstance(encoder, nn.Module)
        tokens = encoder(torch.ones(1, 16, 16, 2), "square").view(4, 4, LATENT_DIM).movedim(axis, 0)
        assert ((tokens[0] - tokens[-1]).abs().max() < 1e-5) == alike


def test_decoding_between_walls_is_not_periodic():
    shapes = {"walls": SQUARE, "none": replace(SQUARE, boundary="periodic")}
    decoder = build("autoencoder", shapes=shapes).requires_grad_(False).decoder
    assert isinstance(decoder, nn.Module)
    latents = normal(2, 16, LATENT_DIM)
    ends = torch.tensor([[0.0, 0.3], [1.0, 0.3], [0.7, 0.0], [0.7, 1.0]])
    for problem, wraps in (("walls", False), ("none", True)):
        values = decoder(latents, ends, problem)
        for start in (0, 2):
            same = (values[:, start] - values[:, start + 1]).abs().max() < 1e-4
            assert same == wraps


def test_the_decoder_reads_any_points_of_a_square():
    """Another resolution is other points of the same function: where both have a point, values agree."""
    decoder = build("autoencoder", shapes={"square": SQUARE}).requires_grad_(False).decoder
    assert isinstance(decoder, nn.Module)
    latents = normal(2, 16, LATENT_DIM)
    coarse = decoder(latents, cell_centres([16, 16]), "square").view(2, 16, 16, 2)
    fine = decoder(latents, cell_centres([48, 48]), "square").view(2, 48, 48, 2)
    torch.testing.assert_close(fine[:, 1::3, 1::3], coarse, **CLOSE)
    assert (fine[:, 0::3, 1::3] - coarse).abs().max() > 1e-3
    some = torch.rand(20, 2, generator=torch.Generator().manual_seed(0))
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    values = decoder(latents, some, "square")
    torch.testing.assert_close(decoder(latents, some[order], "square"), values[:, order], **CLOSE)


# --- fields that are known in part ----------------------------------------------------------------


def test_unknown_values_are_not_seen_but_what_is_known_is():
    frozen = build("codec", shapes=MIX)
    assert isinstance(frozen, Codec)
    codec = frozen.of("square")
    fields = fields_of(SQUARE)
    other = fields.clone()
    other[..., 1] = 100 * normal(3, 16, 16, seed=5)
    given = torch.tensor([[True, False]]).expand(3, -1)
    assert torch.equal(encoded_frames(codec, other, given), encoded_frames(codec, fields, given))
    everything = encoded_frames(codec, fields, torch.ones(3, 2, dtype=torch.bool))
    assert torch.equal(encoded_frames(codec, fields), everything), "without a word all is known"
    assert (encoded_frames(codec, other) - everything).abs().max() > 0.1
    assert (encoded_frames(codec, fields, given) - everything).abs().max() > 0.1
    changed = fields.clone()
    changed[..., 0] += 1.0
    difference = encoded_frames(codec, changed, given) - encoded_frames(codec, fields, given)
    assert difference.abs().max() > 1e-2


def test_each_sample_of_a_batch_has_its_own_pattern():
    frozen = build("codec", shapes=MIX)
    assert isinstance(frozen, Codec)
    codec = frozen.of("square")
    fields = fields_of(SQUARE)
    patterns = torch.tensor([[True, False], [True, True], [False, True]])
    together = encoded_frames(codec, fields, patterns)
    for sample in range(3):
        single = encoded_frames(codec, fields[sample : sample + 1], patterns[sample : sample + 1])
        torch.testing.assert_close(together[sample : sample + 1], single, **CLOSE)


def test_a_field_at_its_mean_is_not_the_same_as_an_unknown_one():
    """Both are 0 when they come to the network: only the pattern tells them apart."""
    encoder = build("autoencoder", shapes=MIX).requires_grad_(False).encoder
    assert isinstance(encoder, nn.Module)
    fields = fields_of(SQUARE)
    fields[..., 1] = 0.0
    known = encoder(fields, "square", torch.tensor([[True, True]]).expand(3, -1))
    unknown = encoder(fields, "square", torch.tensor([[True, False]]).expand(3, -1))
    assert (known - unknown).abs().max() > 1e-2


def test_patterns_are_embedded_only_where_there_are_some():
    layout = LINE.token_grid
    plain = PatchEmbedding(layout, channels=1, partly_known=False, width=8)
    assert plain.known is None
    unknown = torch.tensor([[False]] * 3)
    patches = layout.patchify(fields_of(LINE))
    assert torch.equal(plain(patches, unknown), plain(patches, None))
