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
from ups.models.build import MODEL_FILE, Description, load_codec, load_model
from ups.models.codec import Codec
from ups.models.operator import LatentOperator
from ups.models.residual import ResidualNetwork


@dataclass(frozen=True)
class Sampling:
    """How the generative models are sampled.

    Attributes:
        steps: of the diffusion sampler.
        sigma_min, sigma_max, rho: its noise levels.
        student_sigma_min: noise level at which the consistency student is the identity.
        second_sigma: noise level of its second call.
        members: of every ensemble.
    """

    steps: int
    sigma_min: float
    sigma_max: float
    rho: float
    student_sigma_min: float
    second_sigma: float
    members: int


@dataclass(frozen=True)
class Surrogate:
    """The networks of a run, for all of its problems."""

    codec: Codec
    description: Description
    operator: LatentOperator
    diffusion: ResidualNetwork
    consistency: ResidualNetwork
    sampling: Sampling

    @property
    def problems(self) -> list[str]:
        """Names, in the configuration's order."""
        return list(self.codec.shapes)

    def forecasters(self, problem: str) -> list[Forecaster]:
        """Every trained row of a problem's table."""
        sampling = self.sampling
        return [
            operator_forecaster(self.operator, problem),
            *diffusion_forecasters(
                self.operator,
                self.diffusion,
                problem,
                steps=sampling.steps,
                sigma_min=sampling.sigma_min,
                sigma_max=sampling.sigma_max,
                rho=sampling.rho,
                members=sampling.members,
            ),
            *consistency_forecasters(
                self.operator,
                self.consistency,
                problem,
                sigma_min=sampling.student_sigma_min,
                sigma_max=sampling.sigma_max,
                second_sigma=sampling.second_sigma,
                members=sampling.members,
            ),
        ]


def load_surrogate(artifacts: Mapping[str, Path], configuration: Configuration) -> Surrogate:
    """Rebuild the networks of a run and check that all were trained on its codec's latents of its problems.

    Args:
        artifacts: directories of cache_encode, operator, diffusion and consistency.
        configuration: how to sample: device, noise levels, steps, members. Architectures come from the files.

    Raises:
        IntegrityError: a file is damaged, or belongs to another codec or other problems.
    """
    device = configuration.execution.device
    noise = configuration.training.diffusion.noise
    codec, codec_description = load_codec(artifacts["cache_encode"], device)
    operator, operator_description = load_model(artifacts["operator"] / MODEL_FILE, device)
    diffusion, diffusion_description = load_model(artifacts["diffusion"] / MODEL_FILE, device)
    consistency, consistency_description = load_model(artifacts["consistency"] / MODEL_FILE, device)
    for stage, description in (
        ("operator", operator_description),
        ("diffusion", diffusion_description),
        ("consistency", consistency_description),
    ):
        if description["codec"] != codec_description["codec"]:
            raise IntegrityError("was trained on latents of another encoder", where=str(artifacts[stage]))
        if description["problems"] != codec_description["problems"]:
            raise IntegrityError(
                f"was trained on other problems ({', '.join(description['problems'])}) than the encoder "
                f"({', '.join(codec_description['problems'])}), or on other shapes of them",
                where=str(artifacts[stage]),
            )
    assert isinstance(operator, LatentOperator)
    assert isinstance(diffusion, ResidualNetwork)
    assert isinstance(consistency, ResidualNetwork)
    sampling = Sampling(
        steps=configuration.training.diffusion.sampler_steps,
        sigma_min=noise.sigma_min,
        sigma_max=noise.sigma_max,
        rho=noise.rho,
        student_sigma_min=consistency_description["sigma_min"],
        second_sigma=configuration.training.consistency.second_sigma,
        members=configuration.evaluation.members,
    )
    return Surrogate(codec, codec_description, operator, diffusion, consistency, sampling)
