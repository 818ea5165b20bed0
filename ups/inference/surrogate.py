"""All networks of a finished run, rebuilt from their own files."""

from dataclasses import dataclass
from pathlib import Path


from ups.config import Configuration
from ups.errors import IntegrityError
from ups.evaluation.forecaster import (
    Forecaster,
    consistency_forecasters,
    diffusion_forecasters,
    operator_forecaster,
)
from ups.models.build import Description, load_model
from ups.models.codec import Codec
from ups.models.operator import LatentOperator
from ups.models.residual import ResidualConsistency, ResidualDiffusion


@dataclass(frozen=True)
class Surrogate:
    """Codec and forecasters of a run."""

    codec: Codec
    description: Description
    forecasters: list[Forecaster]

    @property
    def grid(self) -> tuple[int, ...]:
        """Field grid of the encoder."""
        return tuple(self.description["grid"])


def load_surrogate(
    codec: Path, operator: Path, diffusion: Path, consistency: Path, configuration: Configuration
) -> Surrogate:
    """Rebuild the networks and check that all were trained on this codec's latents.

    Raises:
        IntegrityError: a file is damaged, or belongs to another codec.
    """
    device = configuration.execution.device
    noise = configuration.training.diffusion.noise
    members = configuration.evaluation.members
    codec_model, codec_description = load_model(codec, device)
    models = {path: load_model(path, device) for path in (operator, diffusion, consistency)}
    encoders = {description["codec"] for _, description in models.values()}
    if len(encoders) != 1:
        raise IntegrityError("the models were trained on latents of different encoders", where=str(operator))
    operator_model, diffusion_model, consistency_model = (model for model, _ in models.values())
    assert isinstance(codec_model, Codec)
    assert isinstance(operator_model, LatentOperator)
    assert isinstance(diffusion_model, ResidualDiffusion)
    assert isinstance(consistency_model, ResidualConsistency)
    forecasters = [
        operator_forecaster(operator_model),
        *diffusion_forecasters(
            operator_model,
            diffusion_model,
            steps=configuration.training.diffusion.sampler_steps,
            sigma_min=noise.sigma_min,
            sigma_max=noise.sigma_max,
            rho=noise.rho,
            members=members,
        ),
        *consistency_forecasters(
            operator_model,
            consistency_model,
            sigma_max=noise.sigma_max,
            second_sigma=configuration.training.consistency.second_sigma,
            members=members,
        ),
    ]
    return Surrogate(codec_model, codec_description, forecasters)
