"""The deviation of a residual grows with the steepness of its forecast, and its fit finds what made it."""

import math

import pytest
import torch
from tiny import LATENT_DIM, LEADS, LINE, PROBLEM, SQUARE, TOKENS, build, fresh
from torch import Tensor

from ups.models.forecast import Forecast
from ups.models.residual import ResidualNetwork

SHAPES = {PROBLEM: LINE, "square": SQUARE}


def network(kind: str = "diffusion") -> ResidualNetwork:
    model = fresh(kind, shapes=SHAPES)
    assert isinstance(model, ResidualNetwork)
    return model


def forecasts(count: int, seed: int = 0) -> Forecast:
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.rand(count, 1, 1, 1, generator=generator) * 3 + 0.1
    mean = sizes * torch.randn(count, LEADS, TOKENS, LATENT_DIM, generator=generator)
    variance = sizes.square() * torch.rand(count, LEADS, TOKENS, 1, generator=generator)
    return Forecast(mean, variance)


def times(factor: float, z: Forecast) -> Forecast:
    """A forecast of another amplitude."""
    return Forecast(factor * z.mean, factor**2 * z.variance)


def test_the_steepness_is_the_largest_difference_of_neighbours_around_the_seam_too():
    flat = torch.zeros(1, LEADS, TOKENS, LATENT_DIM)
    flat[0, 1, -1] = 3.0  # 3 to its left neighbour and, around the seam, to the first token
    assert network().steepness(Forecast.single(flat), PROBLEM).item() == pytest.approx(3.0)
    model = network()
    model.get_buffer("deviation_problem_burgers1d")[0] = 0
    deviation = model.deviation(Forecast.single(flat), PROBLEM)[0, 1, :, 0]
    expected = torch.zeros(TOKENS)
    expected[-1], expected[0], expected[-2] = 3.0, 3 / math.sqrt(2), 3 / math.sqrt(2)
    torch.testing.assert_close(deviation, expected, atol=1e-6, rtol=1e-6)


def test_walls_have_no_neighbours_beyond():
    corner = torch.zeros(1, 1, *SQUARE.tokens, LATENT_DIM)
    corner[0, 0, 0, 0] = 2.0
    model = network()
    model.get_buffer("deviation_problem_square")[0] = 0
    deviation = model.deviation(Forecast.single(corner.flatten(2, 3)), "square").unflatten(2, SQUARE.tokens)[
        0, 0, :, :, 0
    ]
    assert deviation[0, 0].item() == pytest.approx(2.0)
    assert deviation[0, 1].item() == pytest.approx(math.sqrt(2))
    assert deviation[-1, 0].item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("factor", [0.1, 7.0])
def test_a_forecast_of_another_amplitude_has_a_deviation_of_that_amplitude(factor):
    model = build("diffusion")
    assert isinstance(model, ResidualNetwork)
    z, scalars = forecasts(4), torch.zeros(4, 2)
    torch.testing.assert_close(
        model.deviation(times(factor, z), PROBLEM), factor * model.deviation(z, PROBLEM), rtol=1e-4, atol=1e-6
    )
    (context, sizes), (other, other_sizes) = (
        model.conditioning(times(f, z), scalars, PROBLEM) for f in (1.0, factor)
    )
    torch.testing.assert_close(other, context, rtol=1e-4, atol=1e-4)
    changed = other_sizes - sizes
    torch.testing.assert_close(changed[:, 2], torch.full((4,), math.log(factor)), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(changed[:, 3], torch.zeros(4), rtol=0, atol=1e-4)


def test_the_fit_finds_the_coefficients_of_a_normal_residual():
    model, z = network(), forecasts(4000)
    wanted = torch.rand(3, LEADS, LATENT_DIM, generator=torch.Generator().manual_seed(3)) + 0.2
    model.get_buffer("deviation_problem_burgers1d").copy_(wanted)
    noise = torch.randn(z.mean.shape, generator=torch.Generator().manual_seed(4))
    residual = model.deviation(z, PROBLEM) * noise
    best = likelihood(model, residual, z)
    model.fit_deviation(residual, z, PROBLEM)
    assert likelihood(model, residual, z) > best - 1e-3
    standard = (residual / model.deviation(z, PROBLEM)).square().mean(dim=(0, 2))
    torch.testing.assert_close(standard, torch.ones_like(standard), rtol=0.03, atol=0)


def likelihood(model: ResidualNetwork, residual: Tensor, z: Forecast) -> float:
    """Mean logarithm, up to a constant."""
    deviation = model.deviation(z, PROBLEM)
    return -(deviation.log() + (residual / deviation).square() / 2).mean().item()


def test_a_disagreement_beyond_all_that_was_seen_counts_less_and_one_within_as_it_is():
    model, z = network(), forecasts(50)
    residual = torch.randn(z.mean.shape, generator=torch.Generator().manual_seed(6))
    before = fresh("diffusion", shapes=SHAPES)
    assert isinstance(before, ResidualNetwork)
    model.fit_deviation(residual, z, PROBLEM)
    before.get_buffer("deviation_problem_burgers1d").copy_(model.get_buffer("deviation_problem_burgers1d"))
    assert torch.equal(model.deviation(z, PROBLEM), before.deviation(z, PROBLEM))

    model.get_buffer("deviation_problem_burgers1d")[:2] = 0  # the disagreement alone
    steepness = model.steepness(z, PROBLEM).square()
    seen = (z.variance / steepness).amax(dim=(0, 2, 3), keepdim=True)
    edge, far = (Forecast(z.mean, (factor * seen * steepness).expand_as(z.variance)) for factor in (1.0, 1e4))
    ratio = model.deviation(far, PROBLEM) / model.deviation(edge, PROBLEM)
    torch.testing.assert_close(ratio, torch.full_like(ratio, 1e4**0.35), rtol=1e-4, atol=0)


@pytest.mark.parametrize("error", [0.0, 1e-7])
def test_a_channel_that_is_forecast_but_for_rounding_has_small_residuals(error):
    """As a map's given field is: taken for a residual, its rounding would make losses of 1e8."""
    model, z = network(), forecasts(8)
    residual = torch.randn(z.mean.shape, generator=torch.Generator().manual_seed(5))
    residual[..., 2] *= error
    model.fit_deviation(residual, z, PROBLEM)
    deviation = model.deviation(z, PROBLEM)
    torch.testing.assert_close(deviation[..., 2], torch.full_like(deviation[..., 2], 1e-6))
    assert (residual / deviation)[..., 2].abs().max() < 1
    others = (residual / deviation)[..., :2].square().mean()
    assert others.item() == pytest.approx(1, abs=0.1)


def tailed(width: float, exponent: float) -> Tensor:
    """Residuals of Johnson's distribution, [n, T, K, d]."""
    normal = torch.randn(500, LEADS, TOKENS, LATENT_DIM, generator=torch.Generator().manual_seed(7))
    return width * torch.sinh(exponent * normal)


@pytest.mark.parametrize(("width", "exponent"), [(0.5, 1.2), (2.0, 0.6)])
def test_the_fit_finds_the_tails_that_made_a_residual(width, exponent):
    model, residual = network(), tailed(width, exponent)
    model.fit_tails(residual, PROBLEM)
    fitted = model.get_buffer("width_problem_burgers1d"), model.get_buffer("exponent_problem_burgers1d")
    torch.testing.assert_close(fitted[0], torch.full((LEADS,), width), rtol=0.3, atol=0)
    torch.testing.assert_close(fitted[1], torch.full((LEADS,), exponent), rtol=0.15, atol=0)
    normal = model.normalised(residual, PROBLEM)
    assert normal.square().mean().item() == pytest.approx(1, abs=1e-3)
    assert normal.pow(4).mean().item() == pytest.approx(3, abs=0.15)
    torch.testing.assert_close(model.in_deviations(normal, PROBLEM), residual, rtol=1e-4, atol=1e-6)
    beyond = model.in_deviations(2 * normal, PROBLEM).abs().amax(dim=(0, 2, 3))
    torch.testing.assert_close(beyond, residual.abs().amax(dim=(0, 2, 3)), rtol=1e-4, atol=0)


def test_a_normal_residual_is_left_as_it_is_but_for_its_size():
    model, normal = network(), tailed(1e4, 1e-4)
    model.fit_tails(3 * normal, PROBLEM)
    expected = normal / normal.square().mean(dim=(0, 2, 3), keepdim=True).sqrt()
    torch.testing.assert_close(model.normalised(3 * normal, PROBLEM), expected, rtol=0.02, atol=0.02)


def test_the_gate_scales_the_mean_and_the_factor_what_differs_from_it():
    model, z = network("consistency"), forecasts(3)
    samples = torch.randn(3, 6, LEADS, TOKENS, LATENT_DIM, generator=torch.Generator().manual_seed(1))
    gate, spread = torch.tensor([0.0, 0.5, 1.0]), torch.tensor([2.0, 1.0, 0.5])
    model.set_calibration(PROBLEM, 1, gate, spread)
    plain, changed = (model.corrections(samples, z, PROBLEM, way) for way in (0, 1))
    torch.testing.assert_close(plain, model.deviation(z, PROBLEM)[:, None] * samples)
    torch.testing.assert_close(changed.mean(dim=1), gate[:, None, None] * plain.mean(dim=1))
    torch.testing.assert_close(changed.std(dim=1), spread[:, None, None] * plain.std(dim=1))


@pytest.mark.parametrize("leads", [1, 2, 3])
def test_every_lead_has_its_own_place(leads):
    """Leads that do not fill a position are filled up, and what comes out there is dropped."""
    model = build("diffusion", shapes=SHAPES).requires_grad_(False)
    assert isinstance(model, ResidualNetwork)
    tokens = torch.randn(2, leads, TOKENS, 2 * LATENT_DIM + 1, generator=torch.Generator().manual_seed(0))
    raw = model.network(tokens, torch.zeros(2, 5), PROBLEM)
    assert raw.shape == (2, leads, TOKENS, LATENT_DIM)
    for lead in range(leads):
        changed = tokens.clone()
        changed[:, lead] += 1
        difference = (model.network(changed, torch.zeros(2, 5), PROBLEM) - raw).abs().amax(dim=(0, 2, 3))
        assert (difference > 1e-4).all()


def test_a_student_starts_as_its_teacher_uncalibrated():
    teacher = build("diffusion", seed=1)
    student = build("consistency", seed=2)
    assert isinstance(teacher, ResidualNetwork)
    assert isinstance(student, ResidualNetwork)
    student.start_from(teacher)
    for name, value in teacher.state_dict().items():
        if "gate" not in name and "spread" not in name:
            assert torch.equal(student.state_dict()[name], value), name
