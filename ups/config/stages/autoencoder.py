"""autoencoder: settings of its training."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field

from ups.config.encoders.points import PointEncoder
from ups.config.networks import block_weights
from ups.config.sizes import KeptShape, training_bytes
from ups.config.stage import (
    ContentOf,
    Stage,
    encoder_modules,
    symmetries_used,
    training_modules,
    training_settings,
)
from ups.config.training import Training
from ups.problems.generated import LEARNT_SPLITS
from ups.section import Integer

if TYPE_CHECKING:
    from ups.config.schema import Configuration


class AutoencoderTraining(Training):
    """Reconstruction of single fields."""

    steps: Integer = Field(
        ge=0,
        le=10**9,
        description="0: the linear codec as it starts, where encoder and decoder have no correction",
    )


def _settings(configuration: "Configuration", _: ContentOf) -> dict[str, Any]:
    """Without steps the codec is the linear one, whatever the seed and the other settings of a training."""
    settings = training_settings(configuration, "autoencoder", "latent", "encoder", "decoder")
    if not configuration.training.autoencoder.steps:
        settings = {name: settings[name] for name in ("model", "execution")} | {"steps": 0}
    return settings | {"order": configuration.loading.order, "exact": symmetries_used(configuration, "exact")}


def codec_weights(configuration: "Configuration", shapes: Mapping[str, KeptShape]) -> int:
    """Weights of encoder and decoder: linear maps of patches, and corrections."""
    dim, total = configuration.model.latent.dim, 0
    corrections = (configuration.model.encoder, configuration.model.decoder)
    for name, shape in shapes.items():
        data, tokens = configuration.problems[name], configuration.tokens(name)
        patch = data.channels * shape.points // tokens ** len(shape.grid)
        total += 2 * patch * dim
        # Maps from and to the patch; what is known, and where the walls are, add a few rows.
        total += sum((patch + 8) * part.width for part in corrections if part.depth)
        encoder = configuration.model.encoder
        if isinstance(encoder, PointEncoder) and encoder.depth:
            total += encoder.message_weights(patch // data.channels, data.channels, len(shape.grid))
    return total + sum(block_weights(part) + dim * part.width for part in corrections if part.depth)


STAGE = Stage(
    "autoencoder",
    inputs=("download",),
    settings=_settings,
    bytes=lambda c, shapes, _: training_bytes(codec_weights(c, shapes), len(shapes)),
    section=("training.autoencoder", AutoencoderTraining),
    splits=lambda _: LEARNT_SPLITS,
    found_by_name=lambda c: [*training_modules(c, "autoencoder"), *encoder_modules(c)],
)
