"""EDM's identities, and its sampler against a Gaussian whose denoiser and trajectories are known."""

import math
from itertools import pairwise

import pytest
import torch
from gaussian import Gaussian
from torch import Tensor

from ups.diffusion.edm import heun_sample, heun_step, loss_weight, noise_levels, precondition

SIGMAS = torch.tensor([1e-3, 0.02, 0.5, 1.0, 3.0, 10.0, 80.0], dtype=torch.float64)
TARGET = Gaussian(mean=0.7, deviation=0.4)


def levels(steps: int, *, sigma_min: float = 1e-4, sigma_max: float = 10.0) -> Tensor:
    return noise_levels(steps, sigma_min=sigma_min, sigma_max=sigma_max, rho=7.0)


def normal(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 2, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_network_sees_unit_variance_and_its_target_has_unit_variance():
    c_skip, c_out, c_in, c_noise = precondition(SIGMAS)
    one = torch.ones_like(SIGMAS)
    torch.testing.assert_close(c_in.square() * (SIGMAS.square() + 1), one)
    # target (y - c_skip (y + n)) / c_out with unit y and n of deviation sigma
    torch.testing.assert_close(
        ((1 - c_skip).square() + c_skip.square() * SIGMAS.square()) / c_out.square(), one
    )
    torch.testing.assert_close(loss_weight(SIGMAS) * c_out.square(), one)
    torch.testing.assert_close(c_noise, SIGMAS.log() / 4)


def test_c_skip_is_the_one_that_amplifies_errors_least():
    c_skip, _, _, _ = precondition(SIGMAS)

    def c_out_squared(skip: Tensor) -> Tensor:
        return (1 - skip).square() + skip.square() * SIGMAS.square()

    for change in (-1e-3, 1e-3):
        assert (c_out_squared(c_skip + change) > c_out_squared(c_skip)).all()


def test_levels_fall_from_sigma_max_to_sigma_min_evenly_in_their_root():
    sigma = levels(9, sigma_min=0.02)
    assert sigma.dtype == torch.float64
    assert sigma[0].item() == pytest.approx(10.0, rel=1e-12)
    assert sigma[-1].item() == pytest.approx(0.02, rel=1e-12)
    roots = sigma ** (1 / 7)
    torch.testing.assert_close(roots.diff(), torch.full((8,), (roots[-1] - roots[0]).item() / 8).double())
    assert levels(1).tolist() == [10.0]


def test_samples_of_a_gaussian_have_its_mean_and_deviation():
    samples = heun_sample(TARGET.denoiser, normal(20_000), levels(64))
    count = samples.numel()
    # Starting at 10 times unit noise instead of the exact marginal leaves a bias of s / 10 at most.
    bias = TARGET.mean * TARGET.deviation / 10
    assert samples.mean().item() == pytest.approx(
        TARGET.mean, abs=bias + 4 * TARGET.deviation / math.sqrt(count)
    )
    assert samples.std().item() == pytest.approx(TARGET.deviation, rel=1e-2)


def test_the_error_of_the_sampler_falls_at_second_order():
    noise = normal(8)
    exact = TARGET.follow(10.0 * noise, 10.0, 0.0)
    steps = torch.tensor([16, 32, 64, 128])
    errors = torch.stack(
        [(heun_sample(TARGET.denoiser, noise, levels(int(n))) - exact).abs().max() for n in steps]
    )
    orders = -errors.log2().diff()
    assert orders.min() > 1.8, errors
    assert orders.max() < 2.5, errors
    assert errors[-1] < 1e-3


def test_the_error_of_a_single_step_falls_at_third_order():
    start = torch.full((8,), 1.0, dtype=torch.float64)
    x = TARGET.mean + 1.1 * normal(8)
    errors = []
    for size in (0.2, 0.1, 0.05, 0.025):
        moved = heun_step(TARGET.denoiser, x, start, start - size)
        errors.append((moved - TARGET.follow(x, start, 1.0 - size)).abs().max())
    orders = -torch.stack(errors).log2().diff()
    assert ((orders > 2.7) & (orders < 3.3)).all(), orders


def test_sampler_and_single_step_are_the_same_method():
    noise, sigma = normal(4), levels(5, sigma_min=0.02)
    x = noise * sigma[0]
    for start, end in pairwise(sigma):
        x = heun_step(TARGET.denoiser, x, start.expand(4), end.expand(4))
    x = TARGET.denoiser(x, sigma[-1:].expand(4))  # Euler from sigma_min to 0 lands on the denoised value
    torch.testing.assert_close(heun_sample(TARGET.denoiser, noise, sigma), x, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_it_calls_the_denoiser_twice_per_step_but_the_last(steps):
    calls = []

    def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
        calls.append(sigma[0].item())
        return TARGET.denoiser(x, sigma)

    heun_sample(denoiser, normal(2), levels(steps))
    assert len(calls) == 2 * steps - 1
    assert min(calls) > 0


def test_zero_noise_gives_the_middle_of_the_distribution():
    sample = heun_sample(TARGET.denoiser, torch.zeros(1, 2, 3, dtype=torch.float64), levels(128))
    exact = TARGET.follow(torch.zeros(1, 1, 1, dtype=torch.float64), 10.0, 0.0)
    torch.testing.assert_close(sample, exact.expand_as(sample), rtol=1e-3, atol=0)
    assert sample.mean().item() == pytest.approx(TARGET.mean, abs=TARGET.deviation / 10)
