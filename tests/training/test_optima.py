"""Each generative objective has its known optimum, and anything else costs more."""

import math

import pytest
import torch
from gaussian import Gaussian, RawNetwork
from tiny import PROBLEM, build, random_batch
from torch import nn

from ups.models.edm import sampling_angles
from ups.models.forecast import Forecast
from ups.models.residual import ResidualNetwork
from ups.training.objectives.consistency import ConsistencyDistillation
from ups.training.objectives.diffusion import ResidualDenoising, ResidualExample

SIGMA_MIN, CENTRE = 0.05, 3.0
LAST = math.atan(SIGMA_MIN)


def mean_loss(objective, model: nn.Module, gaussian: Gaussian, *, draws: int = 4) -> tuple[float, float]:
    """Mean of the loss and of its only term over batches of 2000."""
    totals, terms = [], []
    for seed in range(draws):
        loss = objective(model, gaussian.batch(2000, seed=seed), torch.Generator().manual_seed(100 + seed))
        totals.append(loss.total)
        terms.append(*loss.terms.values())
    return torch.stack(totals).mean().item(), torch.stack(terms).mean().item()


def denoising() -> ResidualDenoising:
    return ResidualDenoising(centre=CENTRE, std_log_sigma=1.2)


def expectation(function) -> float:
    """Of a function of sigma over the log-normal training noise, by the trapezoidal rule."""
    normal = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    density = torch.exp(-normal.square() / 2)
    values = function(CENTRE * torch.exp(1.2 * normal)) * density
    return (values.sum() / density.sum()).item()


@pytest.mark.parametrize("gaussian", [Gaussian(0.0, 1.0), Gaussian(0.3, 0.5), Gaussian(0.0, 2.0)])
def test_the_best_denoiser_has_the_analytic_loss(gaussian):
    """Of the clean tokens v s^2 / (v + s^2); of the raw network that over sin^2."""
    total, term = mean_loss(denoising(), RawNetwork(gaussian), gaussian)
    v = gaussian.variance
    assert total == pytest.approx(expectation(lambda s: (s**2 + 1) * v / (v + s**2)), rel=0.03)
    assert term == pytest.approx(expectation(lambda s: v * s**2 / (v + s**2)), rel=0.03)


def test_on_unit_residuals_the_best_network_is_zero_and_its_loss_is_one():
    gaussian = Gaussian(0.0, 1.0)

    class Zero(RawNetwork):
        def forward(self, y, *_):
            return torch.zeros_like(y)

    total, _ = mean_loss(denoising(), Zero(gaussian), gaussian)
    assert total == pytest.approx(1.0, rel=0.01)


@pytest.mark.parametrize("error", [-0.2, 0.2])
def test_an_error_of_the_raw_network_costs_its_square_at_every_noise_level(error):
    gaussian = Gaussian(0.3, 0.5)
    best, _ = mean_loss(denoising(), RawNetwork(gaussian), gaussian)
    worse, _ = mean_loss(denoising(), RawNetwork(gaussian, error=error), gaussian)
    assert worse - best == pytest.approx(error**2, rel=0.2)


def test_a_residual_is_measured_in_its_own_deviation_and_normalised():
    model, batch = build("diffusion"), random_batch(5)
    assert isinstance(model, ResidualNetwork)
    assert batch.latents is not None
    assert batch.forecasts is not None
    deviation = model.deviation(Forecast.single(batch.forecasts), PROBLEM)
    assert deviation.std() > 0.1
    model.fit_tails((batch.latents - batch.forecasts) / deviation, PROBLEM)
    example = ResidualExample.of(model, batch)
    residual = model.in_deviations(example.residual, PROBLEM)
    torch.testing.assert_close(batch.forecasts + residual * deviation, batch.latents, rtol=1e-5, atol=1e-5)


def distillation(gaussian: Gaussian, intervals: int) -> ConsistencyDistillation:
    angles = sampling_angles(intervals + 1, sigma_min=SIGMA_MIN, centre=CENTRE)
    return ConsistencyDistillation(RawNetwork(gaussian), angles)


@pytest.mark.parametrize("gaussian", [Gaussian(0.0, 1.0), Gaussian(0.3, 0.5)])
def test_the_exact_consistency_function_has_no_loss_and_any_other_has(gaussian):
    """What is left is the error of the teacher's steps, which falls with their number."""

    def squares(intervals: int, error: float = 0.0) -> float:
        student = RawNetwork(gaussian, last=LAST, error=error)
        return mean_loss(distillation(gaussian, intervals), student, gaussian, draws=1)[1]

    assert squares(64) < 1e-5 * squares(64, error=1.0) + 1e-6
    # local error of third order: its square falls as the sixth power; 2^5 leaves room, rounding some more
    assert squares(16) < squares(8) / 2**5 + 1e-10
    for error in (-0.1, 0.1):
        assert squares(64, error) > 100 * squares(64)


def test_no_gradient_flows_into_the_target():
    gaussian = Gaussian(0.3, 0.5)

    class Learner(RawNetwork):
        def __init__(self) -> None:
            super().__init__(gaussian, last=LAST)
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

        model = Two(gaussian, last=LAST)
        return objective(model, batch, torch.Generator().manual_seed(seed)).total.detach()

    objective(student, batch, torch.Generator().manual_seed(seed)).total.backward()
    assert student.shift.grad is not None
    held = (loss_with(1.0, 1.001) - loss_with(1.0, 0.999)) / 0.002
    moving = (loss_with(1.001, 1.001) - loss_with(0.999, 0.999)) / 0.002
    assert student.shift.grad.item() == pytest.approx(held.item(), rel=0.01)
    assert abs(held - moving) > 0.3 * abs(held)


@pytest.mark.slow
def test_the_loss_of_a_share_is_a_share_of_the_loss():
    """The mean over draws does not depend on the size of the batch, as a ratio of batch means would."""
    gaussian = Gaussian(0.3, 0.5)
    objective = distillation(gaussian, 8)
    student = RawNetwork(gaussian, last=LAST, error=1.0)

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
