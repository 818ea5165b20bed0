"""The flow's identities, and its sampler against distributions whose denoiser is known."""

import math
from itertools import pairwise

import pytest
import torch
from gaussian import Gaussian
from torch import Tensor

from ups.models.edm import (
    denoised,
    midpoint_sample,
    midpoint_step,
    noised,
    raw_target,
    sampling_angles,
    wide,
)

ANGLES = torch.tensor([1e-3, 0.05, 0.5, 1.0, 1.4, math.pi / 2], dtype=torch.float64)
TARGET = Gaussian(mean=0.7, deviation=0.4)


def levels(steps: int, *, sigma_min: float = 0.05, centre: float = 3.0) -> Tensor:
    return sampling_angles(steps, sigma_min=sigma_min, centre=centre)


def normal(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 2, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_it_is_the_preconditioning_of_edm():
    """Table 1 for sigma_data = 1: x = y / c_in, D = c_skip x + c_out F."""
    sigma = torch.tensor([0.02, 0.5, 1.0, 10.0], dtype=torch.float64)
    angle, x, raw = sigma.atan(), normal(4, 1), normal(4, 2)
    c_skip, c_out, c_in = 1 / (sigma**2 + 1), sigma / (sigma**2 + 1).sqrt(), 1 / (sigma**2 + 1).sqrt()
    expected = wide(c_skip, x) * x + wide(c_out, x) * raw
    torch.testing.assert_close(denoised(wide(c_in, x) * x, raw, angle), expected)


def test_the_target_of_a_pair_gives_back_its_clean_tokens_and_its_slope():
    clean, noise = normal(6, 1), normal(6, 2)
    y, target = noised(clean, noise, ANGLES), raw_target(clean, noise, ANGLES)
    torch.testing.assert_close(denoised(y, target, ANGLES), clean)
    step = 1e-6
    slope = (noised(clean, noise, ANGLES + step) - noised(clean, noise, ANGLES - step)) / (2 * step)
    torch.testing.assert_close(target, -slope, rtol=1e-6, atol=1e-8)


def test_unit_data_give_the_network_inputs_and_targets_of_unit_variance():
    clean, noise = normal(200_000, 1), normal(200_000, 2)
    for angle in ANGLES.tolist():
        angles = torch.full((len(clean),), angle, dtype=torch.float64)
        assert noised(clean, noise, angles).var().item() == pytest.approx(1, rel=0.01)
        assert raw_target(clean, noise, angles).var().item() == pytest.approx(1, rel=0.01)


def test_levels_start_at_pure_noise_and_are_dense_around_the_centre():
    angle = levels(9)
    assert angle.dtype == torch.float64
    assert angle[0].item() == math.pi / 2
    assert angle[-1].tan().item() == pytest.approx(0.05, rel=1e-9)
    assert (angle.diff() < 0).all()
    closer = levels(9, centre=10.0)
    assert (closer[1:-1] > angle[1:-1]).all()


@pytest.mark.parametrize("mean", [0.0, 1.0, -3.0])
@pytest.mark.parametrize(
    ("steps", "deviation", "tolerance"),
    [
        (6, 0.5, 0.03),
        *((6, deviation, 0.02) for deviation in (1.0, 3.0)),
        *((steps, deviation, 0.02) for steps in (8, 10) for deviation in (0.5, 1.0, 3.0)),
    ],
)
def test_samples_of_a_gaussian_have_its_mean_and_deviation(mean, steps, deviation, tolerance):
    """Within 2 %, in the eight steps of a forecast: the start knows neither mean nor deviation and costs nothing.

    In the six of the demo too, but for a deviation of half of what residuals are scaled to: within 3 %.
    """
    target = Gaussian(mean, deviation)
    # What the sampler does to a normal number is affine: two numbers tell mean and deviation without chance.
    noise = torch.tensor([0.0, 1.0], dtype=torch.float64).view(2, 1, 1)
    middle, upper = midpoint_sample(target.raw, noise, levels(steps)).flatten().tolist()
    assert middle == pytest.approx(mean, abs=tolerance * deviation)
    assert upper - middle == pytest.approx(deviation, rel=tolerance)


@pytest.mark.parametrize(("deviation", "low", "high"), [(8.0, 0.95, 1.05), (16.0, 0.85, 1.05)])
def test_what_many_tokens_have_in_common_is_not_lost(deviation, low, high):
    """A component of unit tokens that all agree has the root of their number as deviation."""
    noise = torch.tensor([0.0, 1.0], dtype=torch.float64).view(2, 1, 1)
    middle, upper = midpoint_sample(Gaussian(0.0, deviation).raw, noise, levels(8)).flatten().tolist()
    assert low < (upper - middle) / deviation < high


@pytest.mark.parametrize("steps", [6, 8, 12])
def test_samples_of_a_mixture_have_its_mean_and_deviation(steps):
    """Peaks at -1 and 2 of deviation 0.3, the first three times as likely: mean -0.25, variance 1.6875 + 0.09."""
    parts, weights = (Gaussian(-1.0, 0.3), Gaussian(2.0, 0.3)), (0.75, 0.25)

    def raw(y: Tensor, angle: Tensor) -> Tensor:
        likely = []
        for part, weight in zip(parts, weights, strict=True):
            middle, spread = (wide(values, y) for values in part.marginal(angle))
            likely.append(weight * torch.exp(-((y - middle) ** 2) / (2 * spread)))
        clean = sum(
            part.denoiser(y, angle) * chance for part, chance in zip(parts, likely, strict=True)
        ) / sum(likely)
        assert isinstance(clean, Tensor)
        return (clean - wide(angle.cos(), y) * y) / wide(angle.sin(), y)

    # Quantiles of a normal number instead of draws: nothing is left to chance.
    chance = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    noise = (math.sqrt(2) * torch.erfinv(2 * chance - 1)).view(-1, 1, 1)
    samples = midpoint_sample(raw, noise, levels(steps))
    deviation = math.sqrt(1.6875 + 0.09)
    assert samples.mean().item() == pytest.approx(-0.25, abs=0.02 * deviation)
    assert samples.std().item() == pytest.approx(deviation, rel=0.02)
    assert (samples > 0.5).double().mean().item() == pytest.approx(0.25, abs=0.01)


def test_the_error_of_a_single_step_falls_at_third_order():
    start = torch.full((8,), 1.0, dtype=torch.float64)
    y = TARGET.mean + 1.1 * normal(8)
    errors = []
    for size in (0.2, 0.1, 0.05, 0.025):
        moved = midpoint_step(TARGET.raw, y, start, start - size)
        errors.append((moved - TARGET.follow(y, start, 1.0 - size)).abs().max())
    orders = -torch.stack(errors).log2().diff()
    assert ((orders > 2.7) & (orders < 3.3)).all(), orders


def test_sampler_and_single_step_are_the_same_method():
    noise, angles = normal(4), levels(5)
    y = noise
    for start, end in pairwise(angles):
        y = midpoint_step(TARGET.raw, y, start.expand(4), end.expand(4))
    y = TARGET.denoiser(y, angles[-1:].expand(4))
    torch.testing.assert_close(midpoint_sample(TARGET.raw, noise, angles), y, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("steps", [2, 5])
def test_it_calls_the_network_twice_per_step_but_the_last(steps):
    calls = []

    def raw(y: Tensor, angle: Tensor) -> Tensor:
        calls.append(angle[0].item())
        return TARGET.raw(y, angle)

    midpoint_sample(raw, normal(2), levels(steps))
    assert len(calls) == 2 * steps - 1
    assert min(calls) > 0
