"""All networks of a finished run, rebuilt from their own files."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from ups.config import Configuration
from ups.errors import IntegrityError
from ups.evaluation.ensembles import (
    PastErrors,
    consistency_forecasters,
    diffusion_forecasters,
    dressed_forecasters,
)
from ups.evaluation.forecaster import Forecaster, OperatorForecasts, linear_forecasters, operator_forecaster
from ups.models.build import MODEL_FILE, Description, codec_of_operator, load_model
from ups.models.codec import Codec
from ups.models.operators import LatentOperator
from ups.models.residual import ResidualNetwork

RESIDUAL_FILE = "residuals.safetensors"
"""Residuals of trajectories that the operator did not fit, in the artifact of the diffusion stage."""


@dataclass(frozen=True)
class Surrogate:
    """The networks of a run, for all of its problems.

    Attributes:
        past: by problem, errors that dress the operator; empty where they were not kept.
        samplers: how the generative models are sampled, by stage; see `ups.models.build`.
        members: of every ensemble.
    """

    codec: Codec
    description: Description
    operator: LatentOperator
    diffusion: ResidualNetwork
    consistency: ResidualNetwork
    past: dict[str, PastErrors]
    samplers: dict[str, dict[str, Any]]
    members: int

    @property
    def problems(self) -> list[str]:
        """Names, in the configuration's order."""
        return list(self.codec.shapes)

    def forecasters(self, problem: str) -> list[Forecaster]:
        """Every trained row of a problem's table."""
        diffusion, members = self.diffusion, self.members
        forecasts = OperatorForecasts(self.operator, self.codec.of(problem))
        past = self.past.get(problem)
        return [
            *linear_forecasters(self.operator, problem),
            operator_forecaster(forecasts),
            *(dressed_forecasters(forecasts, diffusion, past, members=members) if past else []),
            *diffusion_forecasters(forecasts, diffusion, members=members, **self.samplers["diffusion"]),
            *consistency_forecasters(
                forecasts, self.consistency, members=members, **self.samplers["consistency"]
            ),
        ]


def load_surrogate(artifacts: Mapping[str, Path], configuration: Configuration) -> Surrogate:
    """Rebuild the networks of a run; check that all were trained on latents of its codec, for its problems.

    Args:
        artifacts: directories of cache_encode, operator, diffusion and consistency.
        configuration: device and number of members. Architectures and samplers come from the files.

    Raises:
        IntegrityError: a file is damaged, or belongs to another codec or other problems.
    """
    device = configuration.execution.device
    codec, codec_description = codec_of_operator(artifacts, device)
    operator, operator_description = load_model(artifacts["operator"] / MODEL_FILE, device)
    diffusion, diffusion_description = load_model(artifacts["diffusion"] / MODEL_FILE, device)
    consistency, consistency_description = load_model(artifacts["consistency"] / MODEL_FILE, device)
    check_alike(
        codec_description,
        {
            "operator": operator_description,
            "diffusion": diffusion_description,
            "consistency": consistency_description,
        },
        {stage: str(path) for stage, path in artifacts.items()},
    )
    assert isinstance(operator, LatentOperator)
    assert isinstance(diffusion, ResidualNetwork)
    assert isinstance(consistency, ResidualNetwork)
    past = _past_errors(artifacts["diffusion"] / RESIDUAL_FILE, list(codec.shapes), device)
    samplers = {
        "diffusion": diffusion_description["sampler"],
        "consistency": consistency_description["sampler"],
    }
    members = configuration.evaluation.members
    return Surrogate(codec, codec_description, operator, diffusion, consistency, past, samplers, members)


def check_alike(codec: Description, others: Mapping[str, Description], where: Mapping[str, str]) -> None:
    """Check that networks were trained on latents of a codec, for its problems.

    others, where: descriptions of the networks, and what messages call their files, by stage.

    Raises:
        IntegrityError: one was not.
    """
    for stage, description in others.items():
        if description["codec"] != codec["codec"]:
            raise IntegrityError("was trained on latents of another encoder", where=where[stage])
        if description["problems"] != codec["problems"]:
            raise IntegrityError(
                f"was trained on other problems ({', '.join(description['problems'])}) than the encoder "
                f"({', '.join(codec['problems'])}), or on other shapes of them",
                where=where[stage],
            )


def _past_errors(path: Path, problems: list[str], device: str) -> dict[str, PastErrors]:
    try:
        stored = {name: values.to(device) for name, values in load_file(path).items()}
        return {name: PastErrors(stored[f"errors/{name}"], stored[f"scaled/{name}"]) for name in problems}
    except (SafetensorError, KeyError, OSError) as error:
        raise IntegrityError(f"holds no residuals of every problem: {error}", where=str(path)) from error
