"""The equation's own diffusion as the linear path: exact wave by wave, and as the generator has it."""

import math
from dataclasses import replace

import pytest
import torch
from test_equivariance import BURGERS, linear_codec, operator, states
from torch import Tensor

from ups.models.codec import ProblemCodec
from ups.models.embedding import module_key
from ups.models.operators import LatentOperator
from ups.models.operators.operator import _diffusion_of
from ups.models.shape import ProblemShape
from ups.physics.burgers import solve_burgers

NU, STEP = 0.02, 0.03
SCALARS = torch.tensor([[math.log(STEP), math.log(NU)]])
"""Of an amplitude of 1 and a domain of length 1."""


def untrained(shape: ProblemShape = BURGERS) -> tuple[LatentOperator, ProblemCodec]:
    codec = linear_codec(shape, 3)
    model = operator(codec, 3, "convolution", linear_path="exact", conserve="fluxes")
    for name in ("weight", "bias"):
        model.get_parameter(f"network.output.{name}").zero_()
    return model, codec.of("case")


def stepped(shape: ProblemShape, fields: Tensor, stride: int = 1) -> Tensor:
    """Fields [n, x, 1] after a step of a fresh operator, physical units."""
    model, codec = untrained(shape)
    latents = codec.encode(fields[:, None], torch.zeros(1), codec.frame(fields))
    after = model(latents[:, 0], SCALARS.expand(len(fields), -1), "case", stride)
    frame = codec.frame(fields)
    return frame.leave(codec.fields(after[:, None]), torch.zeros(1))[:, 0]


@pytest.mark.parametrize("exact", [(), ("galilean", "scaling")])
@pytest.mark.parametrize("stride", [1, 4])
def test_a_fresh_operator_is_the_heat_equation(exact, stride):
    shape = replace(BURGERS, exact=exact)
    (points,) = shape.grid
    x = (torch.arange(points) + 0.5) / points
    waves = torch.tensor([1, 2, 5, 13])
    fields = 0.4 + torch.sin(2 * math.pi * waves[:, None] * x)[..., None] * torch.tensor([0.5, 2, 1, 3]).view(
        -1, 1, 1
    )
    left = torch.exp(-((2 * math.pi * waves) ** 2) * NU / math.pi * STEP * stride).view(-1, 1, 1)
    mean = fields.mean(dim=1, keepdim=True)
    expected = mean + left * (fields - mean)
    found = stepped(shape, fields, stride=stride)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)


def test_it_is_what_the_generator_does_with_small_states():
    """So small that a wave moves by a thousandth of its length."""
    (points,) = BURGERS.grid
    fields = 1e-4 * states(BURGERS)[..., 0] / states(BURGERS).abs().max()
    fine = 16 * points
    waves = torch.fft.rfft(fields - fields.mean(dim=1, keepdim=True), dim=1)
    waves[:, 5:] = 0
    smooth = torch.fft.irfft(waves, n=fine, dim=1) * 16
    solved = solve_burgers(smooth.double(), nu=NU, frame_interval=STEP, frames=2)[:, 1]
    first, after = (values[:, ::16].float()[..., None] for values in (smooth, solved))
    found = stepped(replace(BURGERS, exact=("galilean", "scaling")), first)
    lost = (first - after).norm()
    assert lost > 0.02 * first.norm()
    assert (found - after).norm() < 0.02 * lost


def test_two_steps_are_one_of_twice_the_length():
    model, _ = untrained()
    latents = torch.randn(3, 9, 3, generator=torch.Generator().manual_seed(1))
    scalars = SCALARS.expand(3, -1)
    twice = model(model(latents, scalars, "case"), scalars, "case")
    torch.testing.assert_close(model(latents, scalars, "case", 2), twice, atol=1e-5, rtol=1e-5)


def test_the_rest_of_the_equation_is_constant_over_a_step():
    """The equation u_t = diffusion + f with a constant f, solved by many small steps of the same operator."""
    model, _ = untrained()
    generator = torch.Generator().manual_seed(2)
    latents, rest = torch.randn(2, 3, 9, 3, generator=generator).double()
    model, scalars, parts = model.double(), SCALARS.expand(3, -1).double(), 4000
    whole = latents + model.with_diffusion(latents, rest, scalars, "case")
    small = scalars - torch.tensor([math.log(parts), 0.0])
    for _ in range(parts):
        latents = (
            latents + model.with_diffusion(latents, torch.zeros_like(rest), small, "case") + rest / parts
        )
    torch.testing.assert_close(whole, latents, atol=2e-3, rtol=0)
    assert (whole - latents - rest).abs().max() > 0.1


def test_dimensionless_numbers_tell_the_diffusion_or_it_is_refused():
    assert _diffusion_of(BURGERS)[0].tolist() == [1, 1]
    shape = replace(BURGERS, equation="advection1d")
    with pytest.raises(ValueError, match="has no diffusion"):
        _diffusion_of(shape)


def test_what_is_exact_stays_exact_where_networks_compute_in_bfloat16():
    model, _ = untrained()
    latents, scalars = torch.randn(2, 9, 3, generator=torch.Generator().manual_seed(3)), SCALARS.expand(2, -1)
    expected = model(latents, scalars, "case")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model(latents, scalars, "case")
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


def test_the_network_is_a_rate_that_a_large_state_does_not_follow_for_ever():
    """Of a small state, whose own time runs slowly, a step takes little; of one that moves a twentieth of the domain, half.
    The network is the same function here, for it is told nothing of the size."""
    model, codec = untrained(replace(BURGERS, exact=("scaling",)))
    model.get_buffer(f"bounded_{module_key(codec.problem)}").fill_(value=False)
    rest = torch.randn(1, 9, 3, generator=torch.Generator().manual_seed(4))
    model.network.forward = lambda state, scalars, problem: rest.expand_as(state)  # pyright: ignore[reportAttributeAccessIssue]
    state = torch.randn(1, 9, 3, generator=torch.Generator().manual_seed(5))
    still = torch.tensor([[math.log(STEP), math.log(1e-9)]])  # next to no viscosity
    key = module_key(codec.problem)
    size = float(state.square().mean().sqrt() * model.get_buffer(f"unit_{key}"))  # of the field
    moved = {
        factor: model(factor / size * state, still, "case") * size / factor - state
        for factor in (1e-2, 2e-2, 1.0, 1e6)
    }
    assert moved[1.0].norm() > 0.1
    # s is STEP times the size.
    for factor, change in moved.items():
        share = (1 / (1 + factor * STEP / 0.05)) * factor
        first = 1 / (1 + STEP / 0.05)
        torch.testing.assert_close(change, moved[1.0] * share / first, atol=1e-4, rtol=1e-2)
    assert codec.shape.scales_itself
