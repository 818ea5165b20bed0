"""A Gaussian residual N(mean, deviation^2): everything that a diffusion model of it should learn, in closed form.

The probability-flow ODE moves x along x(sigma) = mean + (x(S) - mean) sqrt((v + sigma^2) / (v + S^2)), where
v = deviation^2.
"""

from dataclasses import dataclass

import torch
from tiny import LINE, PROBLEM
from torch import Tensor

from ups.data.batch import Batch
from ups.diffusion.consistency import boundary
from ups.diffusion.edm import precondition
from ups.models.latent_transformer import LatentTransformer
from ups.models.residual import ResidualNetwork


@dataclass(frozen=True)
class Gaussian:
    mean: float
    deviation: float

    @property
    def variance(self) -> float:
        return self.deviation**2

    def denoiser(self, x: Tensor, sigma: Tensor) -> Tensor:
        """E[clean | x], the minimiser of the denoising loss."""
        noise = sigma[:, None, None].square()
        return (self.variance * x + noise * self.mean) / (self.variance + noise)

    def follow(self, x: Tensor, start: Tensor | float, end: float) -> Tensor:
        """Where the probability-flow ODE takes x from noise level `start` to `end`."""
        ratio = (self.variance + end**2) / (self.variance + torch.as_tensor(start).square())
        return self.mean + (x - self.mean) * ratio.sqrt().reshape(-1, 1, 1)

    def batch(self, count: int, *, tokens: int = 8, dim: int = 4, seed: int = 0) -> Batch:
        """States with predictions whose error is Gaussian."""
        generator = torch.Generator().manual_seed(seed)
        state, prediction, error = torch.randn(3, count, tokens, dim, generator=generator)
        target = prediction + self.mean + self.deviation * error
        return Batch(
            problem=PROBLEM,
            scalars=torch.zeros(count, 2),
            latents=torch.stack([state, target], dim=1),
            predictions=prediction,
        )


class RawNetwork(ResidualNetwork):
    """The raw network F whose preconditioned form is the exact denoiser, or the exact consistency function.

    `error` is added to F, so that what is right at 0 can be made wrong. The transformer inside is not asked.
    """

    def __init__(self, gaussian: Gaussian, *, sigma_min: float | None = None, error: float = 0.0) -> None:
        shapes = {PROBLEM: LINE}
        sizes = {"width": 4, "depth": 0, "heads": 1, "ratio": 1}
        super().__init__(LatentTransformer(shapes, inputs=12, outputs=4, extra_scalars=1, **sizes), shapes, 4)
        self.gaussian, self.sigma_min, self.error = gaussian, sigma_min, error

    def forward(
        self,
        x: Tensor,
        noise_scalar: Tensor,
        prediction: Tensor,
        state: Tensor,
        scalars: Tensor,
        problem: str,
    ) -> Tensor:
        sigma = (4 * noise_scalar).exp()
        c_skip, c_out, c_in, _ = precondition(sigma)
        noisy = x / c_in[:, None, None]
        if self.sigma_min is None:
            wanted = self.gaussian.denoiser(noisy, sigma)
        else:
            c_skip, c_out = boundary(sigma, self.sigma_min)
            wanted = self.gaussian.follow(noisy, sigma, self.sigma_min)
        raw = (wanted - c_skip[:, None, None] * noisy) / c_out[:, None, None]
        at_the_boundary = (c_out.abs() < 1e-5)[:, None, None]
        return torch.where(at_the_boundary, 0.0, raw) + self.error
