"""A Gaussian residual N(mean, deviation^2): everything that a diffusion model of it should learn, in closed form.

y at an angle has mean cos(a) mean and variance v cos(a)^2 + sin(a)^2, where v = deviation^2; the flow keeps a token's
place in that distribution.
"""

from dataclasses import dataclass

import torch
from tiny import LATENT_DIM, LINE, PROBLEM, RESIDUAL_NETWORK, TOKENS
from torch import Tensor

from ups.data.batch import Batch
from ups.models.edm import wide
from ups.models.forecast import Forecast
from ups.models.residual import ResidualNetwork, SpaceTimeNetwork

LEADS = 5


@dataclass(frozen=True)
class Gaussian:
    mean: float
    deviation: float

    @property
    def variance(self) -> float:
        return self.deviation**2

    def marginal(self, angle: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of y."""
        return self.mean * angle.cos(), self.variance * angle.cos().square() + angle.sin().square()

    def denoiser(self, y: Tensor, angle: Tensor) -> Tensor:
        """E[clean | y], the minimiser of the denoising loss."""
        middle, spread = self.marginal(angle)
        gain = self.variance * angle.cos() / spread
        return self.mean + wide(gain, y) * (y - wide(middle, y))

    def raw(self, y: Tensor, angle: Tensor) -> Tensor:
        """F of the best denoiser."""
        return (self.denoiser(y, angle) - wide(angle.cos(), y) * y) / wide(angle.sin(), y)

    def follow(self, y: Tensor, start: Tensor, end: float) -> Tensor:
        """Where the flow takes y from one angle [B] to another."""
        (before, spread), (after, final) = self.marginal(start), self.marginal(torch.as_tensor(end))
        return after + (y - wide(before, y)) * wide((final / spread).sqrt(), y)

    def jump_raw(self, y: Tensor, angle: Tensor, last: float) -> Tensor:
        """F of the exact consistency function; 0 at the last angle, where any F will do."""
        turn = angle - last
        wanted = self.follow(y, angle, last) - wide(turn.cos(), y) * y
        return torch.where(wide(turn.abs() < 1e-5, y), 0.0, wanted / wide(turn.sin(), y))

    def batch(self, count: int, *, seed: int = 0) -> Batch:
        """Forecasts whose error is Gaussian."""
        generator = torch.Generator().manual_seed(seed)
        forecasts, error = torch.randn(2, count, LEADS, TOKENS, LATENT_DIM, generator=generator)
        return Batch(
            problem=PROBLEM,
            scalars=torch.zeros(count, 2),
            latents=forecasts + self.mean + self.deviation * error,
            forecasts=forecasts,
            variances=torch.zeros(count, LEADS, TOKENS, 1),
        )


class RawNetwork(ResidualNetwork):
    """The raw network F of the exact denoiser, or of the exact consistency function to the angle `last`.

    Residuals are in their own units already: all deviations are 1. `error` is added to F, so that what is right at 0
    can be made wrong. The network inside is not asked.
    """

    def __init__(self, gaussian: Gaussian, *, last: float | None = None, error: float = 0.0) -> None:
        network = SpaceTimeNetwork(
            {PROBLEM: LINE},
            inputs=2 * LATENT_DIM + 1,
            outputs=LATENT_DIM,
            extra_scalars=3,
            **RESIDUAL_NETWORK,
        )
        super().__init__(network, {PROBLEM: LEADS}, LATENT_DIM, ways=1)
        self.gaussian, self.last, self.error = gaussian, last, error

    def deviation(self, forecast: Forecast, problem: str) -> Tensor:
        return torch.ones_like(forecast.mean)

    def forward(self, y: Tensor, angle: Tensor, context: Tensor, scalars: Tensor, problem: str) -> Tensor:
        if self.last is None:
            return self.gaussian.raw(y, angle) + self.error
        return self.gaussian.jump_raw(y, angle, self.last) + self.error
