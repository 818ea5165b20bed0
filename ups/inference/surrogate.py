"""All networks of a finished run, rebuilt from their own files."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ups.config import Configuration
from ups.errors import IntegrityError
from ups.inference.forecaster import (
    Forecaster,
    consistency_forecasters,
    diffusion_forecasters,
    operator_forecaster,
)
from ups.models.build import CODEC_FILE, MODEL_FILE, Description, load_model
from ups.models.codec import Codec
from ups.models.operator import LatentOperator
from ups.models.residual import ResidualNetwork


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


def load_surrogate(artifacts: Mapping[str, Path], configuration: Configuration) -> Surrogate:
    """Rebuild the networks of a run and check that all were trained on its codec's latents.

    Args:
        artifacts: directories of cache_encode, operator, diffusion and consistency.
        configuration: how to sample: device, noise levels, steps, members. Architectures come from the files.

    Raises:
        IntegrityError: a file is damaged, or belongs to another codec.
    """
    device = configuration.execution.device
    noise = configuration.training.diffusion.noise
    members = configuration.evaluation.members
    codec, codec_description = load_model(artifacts["cache_encode"] / CODEC_FILE, device)
    operator, operator_description = load_model(artifacts["operator"] / MODEL_FILE, device)
    diffusion, diffusion_description = load_model(artifacts["diffusion"] / MODEL_FILE, device)
    consistency, consistency_description = load_model(artifacts["consistency"] / MODEL_FILE, device)
    trained_on = {d["codec"] for d in (operator_description, diffusion_description, consistency_description)}
    if trained_on != {codec_description["codec"]}:
        raise IntegrityError(
            "the models were trained on latents of another encoder", where=str(artifacts["operator"])
        )
    assert isinstance(codec, Codec)
    assert isinstance(operator, LatentOperator)
    assert isinstance(diffusion, ResidualNetwork)
    assert isinstance(consistency, ResidualNetwork)
    forecasters = [
        operator_forecaster(operator),
        *diffusion_forecasters(
            operator,
            diffusion,
            steps=configuration.training.diffusion.sampler_steps,
            sigma_min=noise.sigma_min,
            sigma_max=noise.sigma_max,
            rho=noise.rho,
            members=members,
        ),
        *consistency_forecasters(
            operator,
            consistency,
            sigma_min=consistency_description["sigma_min"],
            sigma_max=noise.sigma_max,
            second_sigma=configuration.training.consistency.second_sigma,
            members=members,
        ),
    ]
    return Surrogate(codec, codec_description, forecasters)
