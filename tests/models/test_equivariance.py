"""Forecasts of random networks obey what is exact: symmetries in their frames, and conservation.

The grid has an odd number of points: of an even one the highest wave cannot be shifted by part of a point.
"""

from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny import build, describe
from torch import Tensor

from ups.models.build import build_model
from ups.models.codec import Codec
from ups.models.embedding import module_key
from ups.models.operators import LatentOperator
from ups.models.reference_frame import ReferenceFrame
from ups.models.shape import ProblemShape

STEPS, TIME_STEP = 6, 0.1
BURGERS = ProblemShape("burgers1d", (27,), (9,), (0,), "periodic")
FLOW = ProblemShape("compressible1d", (27,), (9,), (0, 1, 2), "periodic")
DARCY = ProblemShape("darcy2d", (12, 12), (4, 4), (1,), "dirichlet")
ADVECTION = ProblemShape("advection1d", (27,), (9,), (0,), "periodic")
KINDS: dict[str, dict[str, Any]] = {
    "transformer": {"width": 16, "depth": 1, "heads": 2, "ratio": 2},
    "convolution": {"width": 16, "dilations": [1, 2]},
    "hybrid": {"width": 16, "dilations": [1, 2], "heads": 2, "ratio": 2},
    "linear": {},
}


def linear_codec(shape: ProblemShape, latent_dim: int) -> Codec:
    """Untrained and without corrections, with statistics as the stages take them."""
    none = {"encoder": KINDS["transformer"] | {"depth": 0}, "decoder": KINDS["transformer"] | {"depth": 0}}
    codec = build_model(describe("codec", {"case": shape}, latent_dim=latent_dim, **none))
    assert isinstance(codec, Codec)
    generator = torch.Generator().manual_seed(7)
    statistics = codec.of("case").statistics
    for name, value in statistics.named_buffers():
        value.uniform_(0.5, 1.5, generator=generator)
        if shape.scales_itself:
            value.fill_(0.0 if name.endswith("mean") else value[0].item())
    return codec


def operator(codec: Codec, latent_dim: int, kind: str = "hybrid", **changes: Any) -> LatentOperator:
    """All weights random, calibrated as the stage does it."""
    bound = codec.of("case")
    made = {"network": {"kind": kind} | KINDS[kind], "linear_path": "trained", "conserve": True}
    model = build("operator", shapes={"case": bound.shape}, latent_dim=latent_dim, **(made | changes))
    assert isinstance(model, LatentOperator)
    if model.has_linear("case"):
        model.get_buffer(f"linear.{module_key('case')}.fitted").sub_(1.0).mul_(0.05)
    model.set_from_codec(bound)
    return model.requires_grad_(False)


def states(shape: ProblemShape, count: int = 5, seed: int = 0) -> Tensor:
    """First states [n, *grid, C] of waves that the grid resolves with their cubes, around 1."""
    generator = torch.Generator().manual_seed(seed)
    if len(shape.grid) == 2:
        fields = torch.randn(count, *shape.grid, 2, generator=generator)
        return fields * torch.tensor([1.0, 0.0])
    x, wave = (torch.arange(shape.grid[0]) + 0.5) / shape.grid[0], torch.arange(1, 5)
    size, phase = torch.randn(2, count, shape.channels, 4, generator=generator)
    waves = (size[..., None] * (2 * torch.pi * (wave[:, None] * x + phase[..., None])).sin()).sum(dim=2)
    return (1 + 0.3 * waves).transpose(1, 2)


def forecast(
    model: LatentOperator, codec: Codec, first: Tensor, scalars: Tensor, elapsed: Tensor, steps: int = STEPS
) -> Tensor:
    """Physical fields [n, steps, *grid, C]; elapsed: [steps] or [n, steps]."""
    bound = codec.of("case")
    parameters = {"beta": 0.7} if bound.shape.equation == "darcy2d" else {}
    frame = bound.frame(first, parameters)
    known = torch.tensor([[True, False]]).expand(len(first), 1, -1) if bound.shape.partly_known else None
    state = bound.encode(first[:, None], torch.zeros(1), frame, known)[:, 0]
    numbers, latents = frame.conditioning(scalars), []
    for _ in range(steps):
        state = model(state, numbers, "case")
        latents.append(state)
    return bound.decode(torch.stack(latents, dim=1), elapsed, frame).unflatten(2, bound.shape.grid)


CASES = [
    (BURGERS, ("shift",)),
    (BURGERS, ("reflection",)),
    (BURGERS, ("galilean",)),
    (BURGERS, ("scaling",)),
    (BURGERS, ("shift", "reflection", "galilean", "scaling")),
    (ADVECTION, ("shift", "offset", "scaling")),
    (FLOW, ("shift", "reflection", "galilean")),
    (replace(FLOW, variables="conserved"), ("shift", "reflection")),
    (DARCY, ("square",)),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("shape", "symmetries"), CASES, ids=str)
def test_a_forecast_of_the_moved_is_the_moved_forecast(kind, shape, symmetries):
    exact = replace(shape, exact=symmetries)
    codec = linear_codec(exact, 3 * shape.channels if len(shape.grid) == 1 else 18)
    model = operator(codec, 3 * shape.channels if len(shape.grid) == 1 else 18, kind)
    first, steps = states(shape), 1 if shape is DARCY else STEPS
    elapsed = TIME_STEP * torch.arange(1, steps + 1)
    scalars = torch.linspace(-3, -2, shape.scalars).expand(len(first), -1)
    plain = forecast(model, codec, first, scalars, elapsed, steps)
    assert plain.isfinite().all()
    moving = ReferenceFrame.random(shape, first, symmetries, torch.Generator().manual_seed(1))
    moved_first = moving.enter(first[:, None], torch.zeros(1))[:, 0]
    assert (moved_first - first).abs().max() > 0.1
    moved = forecast(model, codec, moved_first, moving.conditioning(scalars), moving.times(elapsed), steps)
    expected = moving.enter(plain, elapsed)
    assert (expected - moved_first[:, None]).abs().max() > 0.05, "persistence would prove little"
    error = (moved - expected)[..., list(shape.scored)].abs().max() / expected[
        ..., list(shape.scored)
    ].abs().max()
    assert error < 1e-4


def test_with_exact_diffusion_beside_the_network_a_forecast_obeys_too():
    symmetries = ("shift", "reflection", "galilean", "scaling")
    codec = linear_codec(replace(BURGERS, exact=symmetries), 3)
    model, first = (
        operator(codec, 3, "convolution", linear_path="exact", conserve="fluxes"),
        states(BURGERS),
    )
    elapsed, scalars = TIME_STEP * torch.arange(1, STEPS + 1), torch.tensor([[-3.0, -4.0]]).expand(5, -1)
    plain = forecast(model, codec, first, scalars, elapsed)
    moving = ReferenceFrame.random(BURGERS, first, symmetries, torch.Generator().manual_seed(1))
    moved_first = moving.enter(first[:, None], torch.zeros(1))[:, 0]
    moved = forecast(model, codec, moved_first, moving.conditioning(scalars), moving.times(elapsed))
    torch.testing.assert_close(
        moved, moving.enter(plain, elapsed), rtol=0, atol=1e-4 * plain.abs().max().item()
    )
    means = plain.mean(dim=2)
    torch.testing.assert_close(means, first.mean(dim=1)[:, None].expand_as(means), rtol=0, atol=1e-5)


def test_without_it_a_random_network_does_not_obey():
    codec = linear_codec(BURGERS, 3)
    model, first = operator(codec, 3), states(BURGERS)
    elapsed, scalars = TIME_STEP * torch.arange(1, STEPS + 1), torch.tensor([[-3.0, -2.0]]).expand(5, -1)
    plain = forecast(model, codec, first, scalars, elapsed)
    for symmetry in ("shift", "reflection", "galilean", "scaling"):
        moving = ReferenceFrame.random(BURGERS, first, (symmetry,), torch.Generator().manual_seed(1))
        moved_first = moving.enter(first[:, None], torch.zeros(1))[:, 0]
        moved = forecast(model, codec, moved_first, moving.conditioning(scalars), moving.times(elapsed))
        assert (moved - moving.enter(plain, elapsed)).abs().max() > 0.02, symmetry


# --- conservation ---------------------------------------------------------------------------------


def drift(shape: ProblemShape, latent_dim: int, *, conserve: bool | str, kind: str = "hybrid") -> Tensor:
    """Largest change of the mean of each field over a rollout, in its deviation."""
    codec = linear_codec(shape, latent_dim)
    model = operator(codec, latent_dim, kind, conserve=conserve)
    # Small steps: over twenty large ones fields grow out of float32's reach.
    small = [
        value for name, value in model.named_parameters() if "network.output." in name or "change" in name
    ]
    for value in small:
        value.mul_(0.02)
    first = states(shape)
    scalars = torch.linspace(-3, -2, shape.scalars).expand(len(first), -1)
    fields = forecast(model, codec, first, scalars, TIME_STEP * torch.arange(1, 21), 20)
    start = codec.of("case").encode(first[:, None], torch.zeros(1), codec.of("case").frame(first))
    first = codec.of("case").decode(start, torch.zeros(1), codec.of("case").frame(first))[:, 0]
    change = (fields.flatten(2, -2).mean(dim=2) - first.mean(dim=1, keepdim=True)).abs().amax(dim=(0, 1))
    return change / codec.of("case").statistics.field_deviation


ALL_OF_BURGERS = replace(BURGERS, exact=("shift", "reflection", "galilean", "scaling"))
CONSERVED = replace(FLOW, variables="conserved")


@pytest.mark.parametrize("conserve", [True, "fluxes"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("shape", "latent_dim"),
    [
        (BURGERS, 3),
        (BURGERS, 2),
        (ALL_OF_BURGERS, 3),
        (ADVECTION, 3),
        (CONSERVED, 9),
        (CONSERVED, 5),
        (FLOW, 9),
    ],
    ids=str,
)
def test_what_is_conserved_keeps_its_mean(shape, latent_dim, kind, conserve):
    """Also where a token has fewer numbers than its patch. Of primitive fields only the density is conserved."""
    kept = drift(shape, latent_dim, conserve=conserve, kind=kind)
    free = drift(shape, latent_dim, conserve=False, kind=kind)
    conserved = [field.conserved for field in shape.problem.fields_in(shape.variables)]
    for channel, constant in enumerate(conserved):
        if constant:
            assert kept[channel] < 1e-5
            # A linear map of a field whose mean is zero has mean zero by itself.
            assert free[channel] > 1e-3 or (kind == "linear" and "galilean" in shape.exact)
        else:
            assert kept[channel] > 1e-3


def test_fluxes_change_a_point_by_what_flows_through_its_sides():
    """A flux between two points takes from one what it gives the other; what is not conserved is an increment."""
    for shape, conserved in ((CONSERVED, [True] * 3), (FLOW, [True, False, False])):
        codec = linear_codec(shape, 9)
        bound = codec.of("case")
        model = operator(codec, 9, conserve="fluxes")
        flux = torch.zeros(1, 1, 27, 3)
        flux[0, 0, 11] = 1.0
        raw = codec.autoencoder.encoder(flux[0], "case") / bound.statistics.latent_deviation
        decoded = bound.autoencoder.decoder.grid(
            model.differences(raw, "case") * bound.statistics.latent_deviation, "case"
        )
        expected = flux[0].clone()
        for channel, one in enumerate(conserved):
            if one:
                expected[0, 10, channel], expected[0, 11, channel] = 27 / 16, -27 / 16
        torch.testing.assert_close(decoded, expected, rtol=1e-4, atol=1e-5)


def test_conservation_takes_off_no_more_than_it_must():
    """The part of an increment that keeps all means is left as it is, and the rest is even over the domain."""
    codec = linear_codec(CONSERVED, 9)
    free, kept = (operator(codec, 9, conserve=conserve) for conserve in (False, True))
    state, scalars = torch.randn(4, 9, 9, generator=torch.Generator().manual_seed(0)), torch.zeros(4, 3)
    taken = free(state, scalars, "case") - kept(state, scalars, "case")
    assert taken.abs().max() > 1e-3
    torch.testing.assert_close(taken, taken[:, :1].expand_as(taken), rtol=0, atol=1e-5)
    # Three directions for three means: what lies across them is untouched.
    assert torch.linalg.matrix_rank(taken[:, 0], rtol=1e-4) == 3
    fields = codec.of("case").normalised_fields(taken[:, None]) - codec.of("case").normalised_fields(
        torch.zeros_like(taken[:, None])
    )
    assert fields.std(dim=2).max() < 10 * fields.mean(dim=2).abs().max()


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_a_curved_codec_has_no_mean_and_no_amplitude(part):
    curved = {"encoder": {"depth": 0}, "decoder": {"depth": 0}} | {part: {"depth": 1}}
    sizes = {name: KINDS["transformer"] | depth for name, depth in curved.items()}
    for shape, conserve in ((BURGERS, True), (replace(BURGERS, exact=("scaling",)), False)):
        codec = build_model(describe("codec", {"case": shape}, latent_dim=3, **sizes))
        assert isinstance(codec, Codec)
        model = build("operator", shapes={"case": shape}, latent_dim=3, conserve=conserve)
        assert isinstance(model, LatentOperator)
        with pytest.raises(ValueError, match="linear codec only"):
            model.set_from_codec(codec.of("case"))


@pytest.mark.parametrize("latent_dim", [3, 2])
def test_the_network_is_told_the_amplitude_of_the_field(latent_dim):
    """In physical units, whatever the latents' are: a field of twice the size has twice the numbers."""
    shape = replace(BURGERS, exact=("scaling",))
    codec = linear_codec(shape, latent_dim)
    model = operator(codec, latent_dim)
    seen = []
    model.network.register_forward_pre_hook(lambda _, given: seen.append(given))
    bound, scalars = codec.of("case"), torch.tensor([[-3.0, -4.0]]).expand(5, -1)
    for factor in (1.0, 2.0):
        first = factor * states(shape)
        if latent_dim == 2:
            first = first.unflatten(1, (9, 3)) * torch.tensor([1.0, 1.0, 0.0])[:, None]
            first = first.flatten(1, 2)  # the third value of a patch has no number
        state = bound.encode(first[:, None], torch.zeros(1), bound.frame(first))[:, 0]
        model(state, scalars, "case")
        tokens, numbers, _ = seen[-1]
        torch.testing.assert_close(tokens.square().mean(dim=(1, 2)), torch.ones(5), rtol=1e-4, atol=0)
        size = first.square().mean(dim=(1, 2)).sqrt().log()
        expected = scalars + torch.stack([size, -size], dim=1)
        torch.testing.assert_close(numbers, expected, rtol=1e-4, atol=1e-4)


def test_a_step_of_what_never_grows_is_cut_to_its_size():
    """A random operator on noise; a step that shrinks is left as it is."""
    shape = replace(BURGERS, exact=("scaling",))
    model = operator(linear_codec(shape, 3), 3, "convolution", linear_path="none", conserve=False)
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(64, shape.token_grid.token_count, 3, generator=generator)
    noise = noise / noise.square().mean(dim=(1, 2), keepdim=True).sqrt()
    scalars = torch.full((64, shape.scalars), -3.0)
    unit = model.get_buffer("unit_problem_case").log() * model.get_buffer("amplitude_exponents_problem_case")
    free = noise + model.network(noise, scalars + unit, "case")
    size = free.square().mean(dim=(1, 2), keepdim=True).sqrt()
    found = model(noise, scalars, "case")
    torch.testing.assert_close(found, free / size.clamp_min(1), rtol=1e-4, atol=1e-5)
    assert size.max() > 1.1
    with torch.no_grad():
        model.network.output.weight.zero_()
        model.network.output.bias.zero_()
    model.network.forward = lambda state, *_: -0.5 * state
    torch.testing.assert_close(model(noise, scalars, "case"), 0.5 * noise)
