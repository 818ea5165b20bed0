"""Denoising of the residual of whole forecasts."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ups.data.batch import Batch
from ups.models.edm import Network, noised, raw_target
from ups.models.forecast import Forecast
from ups.models.residual import ResidualNetwork
from ups.training.objectives.objective import Loss, Objective


class ResidualDenoising(Objective):
    """EDM's training objective (eq. 8) on the normalised residual of forecasts, as the squared error of the raw network."""

    def __init__(self, *, centre: float, std_log_sigma: float) -> None:
        """Training noise is log-normal around `centre`, in units of the residual's deviation."""
        self.mean_log_sigma = math.log(centre)
        self.std_log_sigma = std_log_sigma

    def __call__(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Loss:
        example = ResidualExample.of(model, batch)
        residual = example.residual
        normal = torch.randn(len(residual), generator=generator, device=residual.device)
        angle = torch.exp(self.mean_log_sigma + self.std_log_sigma * normal).atan()
        noise = torch.randn(residual.shape, generator=generator, device=residual.device)
        raw = example.network(model)(noised(residual, noise, angle), angle).float()
        errors = (raw - raw_target(residual, noise, angle)).square().flatten(1).mean(dim=1)
        return Loss(errors.mean(), {"L_denoise": (angle.sin().square() * errors).mean()})


@dataclass(frozen=True)
class ResidualExample:
    """A batch as the generative models see it.

    Attributes:
        residual: normalised, see `ups.models.residual`, [B, T, K, d].
        context, scalars: as from `ResidualNetwork.conditioning`.
    """

    problem: str
    residual: Tensor
    context: Tensor
    scalars: Tensor

    @classmethod
    def of(cls, model: nn.Module, batch: Batch) -> "ResidualExample":
        """Of a batch with forecasts, by the statistics of a model."""
        if batch.latents is None or batch.forecasts is None or batch.variances is None:
            raise ValueError("this objective reads latents and the operator's forecasts of them")
        network, problem = _residual_network(model), batch.problem
        forecast = Forecast(batch.forecasts, batch.variances)
        residual = (batch.latents - forecast.mean) / network.deviation(forecast, problem)
        return cls(
            problem,
            network.normalised(residual, problem),
            *network.conditioning(forecast, batch.scalars, problem),
        )

    def network(self, model: nn.Module) -> Network:
        """A model of residuals as a function of noisy tokens and their angle."""
        return lambda y, angle: model(y, angle, self.context, self.scalars, self.problem)


def _residual_network(model: nn.Module) -> ResidualNetwork:
    """The model as what this objective trains."""
    if not isinstance(model, ResidualNetwork):
        raise TypeError(f"this objective trains a ResidualNetwork, not a {type(model).__name__}")
    return model
