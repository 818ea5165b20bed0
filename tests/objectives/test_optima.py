"""Each generative objective has its known optimum, and anything else costs more."""

import pytest
import torch
from gaussian import Gaussian, RawNetwork
from tiny import PROBLEM
from torch import nn

from ups.diffusion.edm import noise_levels
from ups.objectives.consistency import ConsistencyDistillation
from ups.objectives.diffusion import ResidualDenoising, residual_example

SIGMA_MIN, SIGMA_MAX = 0.02, 10.0


def mean_loss(objective, model: nn.Module, gaussian: Gaussian, *, draws: int = 4) -> tuple[float, float]:
    """Mean of the loss and of its only term over batches of 2000."""
    totals, terms = [], []
    for seed in range(draws):
        loss = objective(model, gaussian.batch(2000, seed=seed), torch.Generator().manual_seed(100 + seed))
        totals.append(loss.total)
        terms.append(*loss.terms.values())
    return torch.stack(totals).mean().item(), torch.stack(terms).mean().item()


def expectation(function) -> float:
    """Of a function of sigma over EDM's log-normal training noise, by the trapezoidal rule."""
    normal = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    density = torch.exp(-normal.square() / 2)
    values = function(torch.exp(-0.4 + 1.2 * normal)) * density
    return (values.sum() / density.sum()).item()


@pytest.mark.parametrize("gaussian", [Gaussian(0.0, 1.0), Gaussian(0.3, 0.5), Gaussian(0.0, 2.0)])
def test_the_best_denoiser_has_the_analytic_loss(gaussian):
    objective = ResidualDenoising(mean_log_sigma=-0.4, std_log_sigma=1.2)
    total, term = mean_loss(objective, RawNetwork(gaussian), gaussian)
    v = gaussian.variance
    assert total == pytest.approx(expectation(lambda s: (s**2 + 1) / s**2 * v * s**2 / (v + s**2)), rel=0.03)
    assert term == pytest.approx(expectation(lambda s: v * s**2 / (v + s**2)), rel=0.03)


def test_on_unit_residuals_the_best_network_is_zero_and_its_loss_is_one():
    gaussian = Gaussian(0.0, 1.0)

    class Zero(RawNetwork):
        def forward(self, scaled, *_):
            return torch.zeros_like(scaled)

    objective = ResidualDenoising(mean_log_sigma=-0.4, std_log_sigma=1.2)
    total, _ = mean_loss(objective, Zero(gaussian), gaussian)
    assert total == pytest.approx(1.0, rel=0.01)


@pytest.mark.parametrize("error", [-0.2, 0.2])
def test_an_error_of_the_raw_network_costs_its_square_at_every_noise_level(error):
    gaussian = Gaussian(0.3, 0.5)
    objective = ResidualDenoising(mean_log_sigma=-0.4, std_log_sigma=1.2)
    best, _ = mean_loss(objective, RawNetwork(gaussian), gaussian)
    worse, _ = mean_loss(objective, RawNetwork(gaussian, error=error), gaussian)
    assert worse - best == pytest.approx(error**2, rel=0.2)


def test_a_residual_is_measured_in_its_own_deviation():
    model = RawNetwork(Gaussian(0.0, 1.0))
    deviation = model.deviation(PROBLEM).copy_(torch.tensor([0.1, 1.0, 2.0, 4.0]))
    batch = Gaussian(0.0, 1.0).batch(5)
    assert batch.latents is not None
    assert batch.predictions is not None
    state, prediction, residual = residual_example(model, batch)
    assert torch.equal(state, batch.latents[:, 0])
    torch.testing.assert_close(prediction + residual * deviation, batch.latents[:, 1])


def distillation(gaussian: Gaussian, intervals: int) -> ConsistencyDistillation:
    levels = noise_levels(intervals + 1, sigma_min=SIGMA_MIN, sigma_max=SIGMA_MAX, rho=7.0)
    return ConsistencyDistillation(RawNetwork(gaussian), levels)


@pytest.mark.parametrize("gaussian", [Gaussian(0.0, 1.0), Gaussian(0.3, 0.5)])
def test_the_exact_consistency_function_has_no_loss_and_any_other_has(gaussian):
    """What is left is the error of the teacher's Heun steps, which falls with their number."""

    def squares(intervals: int, error: float = 0.0) -> float:
        student = RawNetwork(gaussian, sigma_min=SIGMA_MIN, error=error)
        return mean_loss(distillation(gaussian, intervals), student, gaussian, draws=1)[1]

    assert squares(128) < 1e-5 * squares(128, error=1.0) + 1e-6
    # local error of third order: its square falls as the sixth power; 2^5 leaves room
    assert squares(32) < squares(16) / 2**5
    for error in (-0.1, 0.1):
        assert squares(128, error) > 100 * squares(128)


def test_no_gradient_flows_into_the_target():
    gaussian = Gaussian(0.3, 0.5)

    class Learner(RawNetwork):
        def __init__(self) -> None:
            super().__init__(gaussian, sigma_min=SIGMA_MIN)
            self.shift = nn.Parameter(torch.tensor(1.0))

        def forward(self, *arguments):
            return super().forward(*arguments) + self.shift

    student = Learner()
    objective = distillation(gaussian, 16)
    batch, seed = gaussian.batch(64), 3

    # The two calls pulled apart, for finite differences with the target held fixed and without.
    def loss_with(target_shift: float, student_shift: float) -> torch.Tensor:
        class Two(RawNetwork):
            def forward(self, *arguments):
                shift = student_shift if torch.is_grad_enabled() else target_shift
                return super().forward(*arguments) + shift

        model = Two(gaussian, sigma_min=SIGMA_MIN)
        return objective(model, batch, torch.Generator().manual_seed(seed)).total.detach()

    objective(student, batch, torch.Generator().manual_seed(seed)).total.backward()
    assert student.shift.grad is not None
    held = (loss_with(1.0, 1.001) - loss_with(1.0, 0.999)) / 0.002
    moving = (loss_with(1.001, 1.001) - loss_with(0.999, 0.999)) / 0.002
    assert student.shift.grad.item() == pytest.approx(held.item(), rel=0.01)
    assert abs(held - moving) > 0.3 * abs(held)


def test_the_loss_of_a_share_is_a_share_of_the_loss():
    """The mean over draws does not depend on the size of the batch, as a ratio of batch means would."""
    gaussian = Gaussian(0.3, 0.5)
    objective = distillation(gaussian, 8)
    student = RawNetwork(gaussian, sigma_min=SIGMA_MIN, error=1.0)

    def losses(count: int, size: int) -> torch.Tensor:
        return torch.stack(
            [
                objective(student, gaussian.batch(size, seed=seed), torch.Generator().manual_seed(seed)).total
                for seed in range(count)
            ]
        )

    large, small = losses(40, 256), losses(1500, 2)
    error = (large.var() / len(large) + small.var() / len(small)).sqrt()
    assert abs(large.mean() - small.mean()) < 4 * error
    assert error < 0.05 * large.mean()
