"""The consistency function is the identity at its last angle, and its sampler reproduces a known distribution."""

import math

import pytest
import torch
from gaussian import Gaussian
from torch import Tensor

from ups.models.consistency import consistency_sample, jump, pseudo_huber
from ups.models.edm import denoised

TARGET = Gaussian(mean=0.7, deviation=0.4)
LAST = math.atan(0.05)


def normal(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 1, 2, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("last", [0.02, 0.3])
def test_at_the_last_angle_the_jump_is_the_identity_whatever_the_network_says(last):
    y = normal(4)

    def jumped(angle: float) -> Tensor:
        return jump(lambda y, _: 100 * y, y, torch.full((4,), angle), last)

    assert torch.equal(jumped(last), y)
    assert (jumped(1.5 * last) - y).abs().max() > last


def test_for_a_last_angle_of_zero_it_is_the_denoiser():
    y, raw, angle = normal(4), normal(4, 1), torch.tensor([0.1, 0.5, 1.0, math.pi / 2])
    torch.testing.assert_close(jump(lambda *_: raw, y, angle, 0.0), denoised(y, raw, angle))


@pytest.mark.parametrize("last", [LAST, 0.4])
@pytest.mark.parametrize(("calls", "second"), [(1, 0.6), (2, 0.6), (2, 1.3), (3, 0.9)])
def test_the_exact_function_samples_the_distribution_in_any_number_of_calls(calls, second, last):
    seen = []

    def network(y: Tensor, angle: Tensor) -> Tensor:
        seen.append((angle[0].item(), y.mean().item(), y.var().item()))
        return TARGET.jump_raw(y, angle, last)

    samples = consistency_sample(network, [normal(100_000, seed) for seed in range(calls)], second, last)
    assert [angle for angle, *_ in seen] == pytest.approx([math.pi / 2] + [second] * (calls - 1))
    # Noise is added so that the level is the one that is told.
    for angle, mean, variance in seen:
        expected_mean, expected_variance = TARGET.marginal(torch.tensor(angle))
        assert mean == pytest.approx(expected_mean.item(), abs=0.01)
        assert variance == pytest.approx(expected_variance.item(), rel=0.02)
    mean, variance = TARGET.marginal(torch.tensor(last))
    assert samples.mean().item() == pytest.approx(mean.item(), abs=0.01)
    assert samples.std().item() == pytest.approx(variance.sqrt().item(), rel=0.01)


def test_the_distance_is_a_square_near_zero_and_a_norm_far_away():
    zero = torch.zeros(1, 4, 25)
    near, far = torch.full_like(zero, 1e-6), torch.full_like(zero, 10.0)
    c = 0.00054 * 10
    assert pseudo_huber(near, zero).item() == pytest.approx(1e-10 / (2 * c), rel=0.02)
    assert pseudo_huber(far, zero).item() == pytest.approx(100.0 - c, rel=1e-4)
