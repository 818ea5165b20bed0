"""The consistency function is the identity at sigma_min, and its sampler reproduces a known distribution."""

import pytest
import torch
from gaussian import Gaussian
from tiny import build, random_batch
from torch import Tensor

from ups.diffusion.consistency import boundary, consistency_sample, jump
from ups.diffusion.edm import precondition

TARGET = Gaussian(mean=0.7, deviation=0.4)


@pytest.mark.parametrize("sigma_min", [0.02, 2e-3, 0.5])
def test_at_sigma_min_the_jump_is_the_identity_whatever_the_weights(sigma_min):
    batch = random_batch(4)
    assert batch.latents is not None
    assert batch.predictions is not None
    x, state = batch.latents[:, 1], batch.latents[:, 0]

    def jumped(sigma: float) -> Tensor:
        model = build("consistency", scale=1.0).requires_grad_(False)
        levels = torch.full((4,), sigma)
        given = (batch.predictions, state, batch.scalars, batch.problem)
        return jump(model, x, levels, *given, sigma_min=sigma_min)

    assert torch.equal(jumped(sigma_min), x)
    assert (jumped(sigma_min * 1.5) - x).abs().max() > 1e-3 * sigma_min


def test_far_from_sigma_min_it_is_preconditioned_as_the_teacher_is():
    sigma = torch.tensor([0.5, 1.0, 10.0], dtype=torch.float64)
    for ours, theirs in zip(boundary(sigma, 1e-9), precondition(sigma)[:2], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=0)


@pytest.mark.parametrize("sigmas", [[10.0], [10.0, 0.8], [10.0, 2.0, 0.3]])
def test_the_exact_function_samples_the_distribution_in_any_number_of_calls(sigmas):
    generator = torch.Generator().manual_seed(0)
    noises = [torch.randn(20_000, 1, 2, generator=generator) for _ in sigmas]
    sigma_min, calls = 0.02, []

    def function(x: Tensor, sigma: Tensor) -> Tensor:
        calls.append(sigma[0].item())
        return TARGET.follow(x, sigma, sigma_min)

    samples = consistency_sample(function, noises, sigmas, sigma_min)
    assert calls == pytest.approx(sigmas)
    # Starting at 10 times unit noise instead of the exact marginal leaves a bias of s / 10 of the mean.
    bias, sampling = TARGET.mean * TARGET.deviation / 10, 4 * TARGET.deviation / 200
    assert samples.mean().item() == pytest.approx(TARGET.mean, abs=bias + sampling)
    assert samples.std().item() == pytest.approx(TARGET.deviation, rel=0.01)


def test_noise_is_added_so_that_the_level_is_the_one_that_is_told():
    """After a call x has deviation sqrt(v + sigma_min^2); the next call must see sqrt(v + sigma^2)."""
    seen = []

    def function(x: Tensor, sigma: Tensor) -> Tensor:
        seen.append(x.var().item())
        return TARGET.follow(x, sigma, 0.3)

    generator = torch.Generator().manual_seed(0)
    noises = [torch.randn(200_000, 1, 1, generator=generator) for _ in range(2)]
    consistency_sample(function, noises, [10.0, 0.5], 0.3)
    assert seen[1] == pytest.approx(TARGET.variance + 0.25, rel=0.02)
