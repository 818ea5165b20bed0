"""Bytes a stage will write, from its configuration alone, so that a full disk refuses before work begins."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

from ups.config import Configuration
from ups.config.data import Generated, ProblemData, PublishedData
from ups.config.schema import StageName, Transformer
from ups.problems import Boundary

_CHECKPOINTS = 3  # two are kept, and the next is written before the oldest goes
_COPIES = 4  # in a checkpoint: weights, their average, and Adam's two moments
_HDF5_BYTES = 8192
_HEADER_BYTES = 4000  # names, shapes and the description in a safetensors file
_HEADER_OF_PROBLEM = 2000
_MODELS_IN_TABLE = 8
_EXAMPLES = 3 * 4  # three trajectories: truth, two forecasts and a spread of each
_CRC_BYTES = 4
_NUMBER_IN_TEXT = 21
_FOURIER_BANDS = 12  # features of each conditioning scalar
_WALL_FEATURES = 8  # of each axis with walls
_LOG_BYTES = 100_000
_FIGURES_BYTES = 2_000_000


@dataclass(frozen=True)
class KeptShape:
    """What is kept of each trajectory of a problem: frames, and grid points per space axis."""

    frames: int
    grid: tuple[int, ...]

    @property
    def points(self) -> int:
        return math.prod(self.grid)


def predicted_bytes(stage: StageName, configuration: Configuration, shapes: Mapping[str, KeptShape]) -> int:
    """Bytes of a stage's artifact and of what lies beside it while it works: checkpoints, blocks, a fetched file.

    Args:
        shapes: of every problem of the configuration.
    """
    model = configuration.model
    match stage:
        case "download":
            return sum(_downloaded(data, shapes[name]) for name, data in configuration.problems.items())
        case "cache_encode":
            size = _weight_bytes(_autoencoder(configuration, shapes), len(shapes))
            return size + sum(_cached(configuration, name, shapes[name]) for name in configuration.problems)
        case "autoencoder":
            parameters = _autoencoder(configuration, shapes)
        case "operator":
            parameters = _conditioned(configuration, model.operator, inputs=1, extra_scalars=0)
        case "diffusion" | "consistency":
            parameters = _conditioned(configuration, model.denoiser, inputs=3, extra_scalars=1)
        case "evaluate":
            return sum(
                _evaluated(data.counts.test, shapes[name]) for name, data in configuration.problems.items()
            )
    return _weight_bytes(parameters, len(shapes)) * (1 + _CHECKPOINTS * _COPIES) + _LOG_BYTES


def _downloaded(data: ProblemData, shape: KeptShape) -> int:
    """Trajectories on the source's grid (what reads them takes every n-th point), and what they come from.

    That is the blocks of a generation, which lie beside the file until it is sealed, or the published file.
    """
    stored = data.stored_grid or tuple(n * getattr(data, "space_stride", 1) for n in shape.grid)
    frames = 1 if data.problem.is_map else shape.frames
    rows = data.counts.total
    values = rows * frames * math.prod(stored) * data.channels * 4
    size = values + _HDF5_BYTES + _index_bytes(rows)
    if isinstance(data, Generated):
        size += values
    if isinstance(data, PublishedData):
        published, per_row = data.published, data.published.frames * math.prod(stored) * data.channels * 4
        whole = published.bytes or published.rows * per_row
        size += whole if data.rows is None else rows * per_row
    return size


def _cached(configuration: Configuration, name: str, shape: KeptShape) -> int:
    """float16 latents and fields in slabs, and their metadata in text; only the attributes where none are stored."""
    if configuration.loading.mode == "encode":
        return _attributes(configuration, name, shape)
    data, dim = configuration.problems[name], configuration.model.latent.dim
    rows, channels = data.counts.total, data.channels
    slab = min(configuration.cache_encode.trajectories_per_chunk, rows)
    slabs = math.ceil(rows / slab)
    per_frame = channels * shape.points + configuration.tokens(name) ** len(shape.grid) * dim
    # The last slab is as long as the others. Every slab of every array ends with its sum, told once more in text.
    arrays = slabs * (1 + channels)
    values = 2 * slabs * slab * shape.frames * per_frame + _CRC_BYTES * arrays
    return values + _attributes(configuration, name, shape) + 20 * arrays + 700 * (1 + channels)


def _attributes(configuration: Configuration, name: str, shape: KeptShape) -> int:
    """Text: rows and splits, times and what is known in each frame, coordinates, statistics. Measured."""
    data, dim = configuration.problems[name], configuration.model.latent.dim
    rows, channels = data.counts.total, data.channels
    per_row, per_frame = 18 + 2 * len(str(rows)), 42 + 15 * channels
    return rows * per_row + shape.frames * per_frame + 25 * sum(shape.grid) + 62 * (channels + dim) + 1900


def _evaluated(trajectories: int, shape: KeptShape) -> int:
    numbers = 4 * shape.frames + shape.points + 2 * trajectories
    examples = 4 * _EXAMPLES * shape.frames * shape.points
    return examples + _MODELS_IN_TABLE * _NUMBER_IN_TEXT * numbers + _FIGURES_BYTES


def _index_bytes(rows: int) -> int:
    """Lists of row numbers, in text."""
    return 3 * rows * (2 + len(str(rows)))


def _weight_bytes(parameters: int, problems: int) -> int:
    return 4 * parameters + _HEADER_BYTES + problems * _HEADER_OF_PROBLEM


def _autoencoder(configuration: Configuration, shapes: Mapping[str, KeptShape]) -> int:
    encoder, decoder = configuration.model.encoder, configuration.model.decoder
    dim = configuration.model.latent.dim
    encoding = encoder.depth * _block(encoder) + (dim + 1) * encoder.width
    # The decoder's cross-attention and its MLP are one more block; the gate a square matrix.
    decoding = (decoder.depth + 1) * _block(decoder) + decoder.width**2 + (dim + 2) * decoder.width
    for name, shape in shapes.items():
        data, axes = configuration.problems[name], len(shape.grid)
        channels, walls = data.channels, _wall_features(data)
        patch = math.prod(shape.grid) // configuration.tokens(name) ** axes
        places = sum(points // configuration.tokens(name) - 1 for points in shape.grid)
        known = channels if data.problem.is_map else 0
        encoding += (channels * patch + 1 + known + walls) * encoder.width
        # Queries: the place in the patch, two layers; the map to the fields.
        decoding += decoder.width**2 + (places + 2 * walls + channels + 2) * decoder.width
    return encoding + decoding


def _conditioned(configuration: Configuration, size: Transformer, *, inputs: int, extra_scalars: int) -> int:
    """A latent transformer modulated by scalars: six vectors per block out of one of its own width."""
    dim = configuration.model.latent.dim
    parameters = size.depth * (_block(size) + 6 * size.width * (size.width + 1))
    parameters += ((inputs + 1) * dim + 1 + len(get_args(Boundary))) * size.width + dim
    for data in configuration.problems.values():
        scalars = len(data.problem.parameters) + (not data.problem.is_map) + extra_scalars
        parameters += size.width**2 + (scalars * _FOURIER_BANDS + 2 + _wall_features(data)) * size.width
    return parameters


def _wall_features(data: ProblemData) -> int:
    boundary = getattr(data, "boundary", None) or data.problem.boundaries[0]
    return 0 if boundary == "periodic" else _WALL_FEATURES * len(data.problem.axes)


def _block(size: Transformer) -> int:
    """Four projections of attention, two of the MLP, norms and biases."""
    return size.width**2 * (4 + 2 * size.ratio) + size.width * (6 + size.ratio)
