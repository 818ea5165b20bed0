"""cache_encode: settings of the latent cache."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field

from ups.config.sizes import KeptShape, weight_bytes
from ups.config.stage import ContentOf, Stage, encoded_on_the_fly, encoder_modules
from ups.config.stages.autoencoder import codec_weights
from ups.problems.generated import LEARNT_SPLITS, ProblemData
from ups.section import Count, Section

if TYPE_CHECKING:
    from ups.config.schema import Configuration

_CRC_BYTES = 4


class CacheEncode(Section):
    """The zarr cache of latents and physical fields."""

    trajectories_per_chunk: Count = Field(
        default=128, description="trajectories in one chunk, which is one file"
    )


def _settings(configuration: "Configuration", _: ContentOf) -> dict[str, Any]:
    """The encoder's latents are the same for any number of ranks and threads."""
    return {
        "cache_encode": configuration.cache_encode.model_dump(),
        "encoded_on_the_fly": encoded_on_the_fly(configuration),
        "device": configuration.execution.device,
    }


def _bytes(configuration: "Configuration", shapes: Mapping[str, KeptShape], _: Mapping[str, int]) -> int:
    codec = weight_bytes(codec_weights(configuration, shapes), len(shapes))
    return codec + sum(_problem_bytes(configuration, name, shapes[name]) for name in configuration.problems)


def _problem_bytes(configuration: "Configuration", name: str, shape: KeptShape) -> int:
    """float16 latents and fields in chunks, and their metadata in text; only the attributes where none are stored."""
    if encoded_on_the_fly(configuration):
        return _attribute_bytes(configuration, name, shape)
    data, dim = configuration.problems[name], configuration.model.latent.dim
    rows, channels = _trajectories(data), data.channels
    chunk = min(configuration.cache_encode.trajectories_per_chunk, rows)
    chunks = math.ceil(rows / chunk)
    per_frame = channels * shape.points + configuration.tokens(name) ** len(shape.grid) * dim
    # The last chunk is as long as the others. Every chunk of every array ends with its sum, which is written once more as text.
    arrays = chunks * (1 + channels)
    values = 2 * chunks * chunk * shape.frames * per_frame + _CRC_BYTES * arrays
    return values + _attribute_bytes(configuration, name, shape) + 20 * arrays + 700 * (1 + channels)


def _trajectories(data: ProblemData) -> int:
    return data.counts.train + data.counts.validation


def _attribute_bytes(configuration: "Configuration", name: str, shape: KeptShape) -> int:
    """Text: rows and splits, what is known in each frame, statistics; and the arrays of coordinates. Measured."""
    data, dim = configuration.problems[name], configuration.model.latent.dim
    rows, channels = _trajectories(data), data.channels
    per_row, per_frame = 18 + 2 * len(str(rows)), 28 + 15 * channels
    axes = 8 * sum(shape.grid) + 700 * (1 + len(shape.grid))
    return rows * per_row + shape.frames * per_frame + axes + 62 * (channels + dim) + 1300


STAGE = Stage(
    "cache_encode",
    inputs=("download", "autoencoder"),
    settings=_settings,
    bytes=_bytes,
    section=("cache_encode", CacheEncode),
    splits=lambda _: LEARNT_SPLITS,
    found_by_name=encoder_modules,
)
