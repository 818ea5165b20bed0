"""Bytes a stage will write, from its configuration alone, so that a full disk refuses before work begins."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ups.config import Configuration
from ups.config.data import PublishedData
from ups.config.networks import Body, OperatorSettings, block_weights
from ups.config.schema import LARGEST_MATRIX, StageName
from ups.problems.generated import Generated, ProblemData

_CHECKPOINTS = 3  # two are kept, and the next is written before the oldest goes
_COPIES = 4  # in a checkpoint: weights, their average, and Adam's two moments
_SPLIT_BYTES = 15_000  # of a problem: the header of its HDF5 file, its description, its manifest
_HEADER_BYTES = 4000  # names, shapes and the description in a safetensors file
_HEADER_OF_PROBLEM = 1700
_MODELS_IN_TABLE = 11
_POOL_TRAJECTORIES = 128  # as ups.stages.diffusion, which this row does not see
_EXAMPLES = 3 * 4  # three trajectories: truth, two forecasts and a spread of each
_CRC_BYTES = 4
_NUMBER_IN_TEXT = 21
_LOG_BYTES = 100_000
_RECORDS_BYTES = 300_000


@dataclass(frozen=True)
class KeptShape:
    """What is kept of each trajectory of a problem: frames, and grid points per space axis."""

    frames: int
    grid: tuple[int, ...]

    @property
    def points(self) -> int:
        return math.prod(self.grid)


def predicted_bytes(
    stage: StageName,
    configuration: Configuration,
    shapes: Mapping[str, KeptShape],
    missing: Mapping[str, int],
) -> int:
    """Bytes of a stage's artifact and of what lies beside it while it works: checkpoints, blocks, a fetched file.

    Args:
        shapes: of every problem of the configuration.
        missing: trajectories of each problem that are still to be made, for the download stage.
    """
    model = configuration.model
    match stage:
        case "download":
            problems = configuration.problems.items()
            return sum(
                _downloaded(data, missing[name], shapes[name]) for name, data in problems if missing[name]
            )
        case "cache_encode":
            size = _weight_bytes(_autoencoder(configuration, shapes), len(shapes))
            return size + sum(_cached(configuration, name, shapes[name]) for name in configuration.problems)
        case "autoencoder":
            parameters = _autoencoder(configuration, shapes)
        case "operator":
            parameters = _network(configuration, model.operator)
            parameters += _linear_paths(configuration, shapes)
            if configuration.training.operator.joint is not None:
                parameters += _autoencoder(configuration, shapes)
        case "diffusion" | "consistency":
            parameters = _denoiser(configuration, shapes)
        case "evaluate":
            return sum(
                _evaluated(data.counts.test, shapes[name]) for name, data in configuration.problems.items()
            )
    size = _weight_bytes(parameters, len(shapes)) * (1 + _CHECKPOINTS * _COPIES) + _LOG_BYTES
    return size + (_forecasts(configuration, shapes) if stage == "diffusion" else 0)


def _downloaded(data: ProblemData, rows: int, shape: KeptShape) -> int:
    """Trajectories on the source's grid (what reads them takes every n-th point), and what they come from.

    That is the blocks of a generation, which lie beside the file until it is sealed, or the published file.
    """
    stored = data.stored_grid or tuple(n * getattr(data, "space_stride", 1) for n in shape.grid)
    frames = 1 if data.problem.is_map else shape.frames
    values = rows * frames * math.prod(stored) * data.channels * 4
    size = values + 3 * _SPLIT_BYTES + _index_bytes(rows)
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
    rows, channels = _cached_trajectories(data), data.channels
    slab = min(configuration.cache_encode.trajectories_per_chunk, rows)
    slabs = math.ceil(rows / slab)
    per_frame = channels * shape.points + configuration.tokens(name) ** len(shape.grid) * dim
    # The last slab is as long as the others. Every slab of every array ends with its sum, told once more in text.
    arrays = slabs * (1 + channels)
    values = 2 * slabs * slab * shape.frames * per_frame + _CRC_BYTES * arrays
    return values + _attributes(configuration, name, shape) + 20 * arrays + 700 * (1 + channels)


def _cached_trajectories(data: ProblemData) -> int:
    return data.counts.train + data.counts.validation


def _attributes(configuration: Configuration, name: str, shape: KeptShape) -> int:
    """Text: rows and splits, what is known in each frame, statistics; and the arrays of coordinates. Measured."""
    data, dim = configuration.problems[name], configuration.model.latent.dim
    rows, channels = _cached_trajectories(data), data.channels
    per_row, per_frame = 18 + 2 * len(str(rows)), 28 + 15 * channels
    axes = 8 * sum(shape.grid) + 700 * (1 + len(shape.grid))
    return rows * per_row + shape.frames * per_frame + axes + 62 * (channels + dim) + 1300


def _evaluated(trajectories: int, shape: KeptShape) -> int:
    numbers = 4 * shape.frames + shape.points + 2 * trajectories
    examples = 4 * _EXAMPLES * shape.frames * shape.points
    return examples + _MODELS_IN_TABLE * _NUMBER_IN_TEXT * numbers + _RECORDS_BYTES


def _index_bytes(rows: int) -> int:
    """Lists of row numbers, in text."""
    return 3 * rows * (2 + len(str(rows)))


def _weight_bytes(parameters: int, problems: int) -> int:
    return 4 * parameters + _HEADER_BYTES + problems * _HEADER_OF_PROBLEM


def _autoencoder(configuration: Configuration, shapes: Mapping[str, KeptShape]) -> int:
    """Weights of encoder and decoder: linear maps of patches, and corrections."""
    dim, total = configuration.model.latent.dim, 0
    corrections = (configuration.model.encoder, configuration.model.decoder)
    for name, shape in shapes.items():
        data, tokens = configuration.problems[name], configuration.tokens(name)
        patch = data.channels * shape.points // tokens ** len(shape.grid)
        total += 2 * patch * dim
        # Maps from and to the patch; what is known, and where the walls are, add a few rows.
        total += sum((patch + 8) * part.width for part in corrections if part.depth)
    return total + sum(block_weights(part) + dim * part.width for part in corrections if part.depth)


def _network(configuration: Configuration, network: OperatorSettings) -> int:
    """Weights of a network on latents, at most a third above their number: matrices between hidden channels, maps
    in and out, and an embedding of scalars per equation."""
    bodies = {
        Body(len(data.problem.axes), data.usual_boundary == "periodic")
        for data in configuration.problems.values()
    }
    dim, width = configuration.model.latent.dim, getattr(network, "width", 0)
    embeddings = len(configuration.problems) * (width**2 + 40 * width)
    return network.hidden_weights(bodies, dim) + 2 * dim * width + embeddings


def _denoiser(configuration: Configuration, shapes: Mapping[str, KeptShape]) -> int:
    """Weights and statistics of the network that corrects whole forecasts, at most a third above their number."""
    size, dim = configuration.model.denoiser, configuration.model.latent.dim
    axes = {len(data.problem.axes) for data in configuration.problems.values()}
    hidden = size.blocks * len(axes) * size.width**2
    hidden += size.blocks * len(size.dilations) * sum(3**n + 3 for n in axes) * size.width**2
    ends = size.leads_per_position * (3 * dim + 1) * size.width
    embeddings = len({data.problem.name for data in configuration.problems.values()}) * (
        size.width**2 + 60 * size.width
    )
    return hidden + ends + embeddings + sum(shape.frames * (3 * dim + 4) for shape in shapes.values())


def _forecasts(configuration: Configuration, shapes: Mapping[str, KeptShape]) -> int:
    """The operator's forecasts of what it did not fit, and residuals of some of them, twice."""
    dim, fraction = configuration.model.latent.dim, configuration.training.operator.residual_fraction
    total = 2 * _HEADER_BYTES
    for name, shape in shapes.items():
        data = configuration.problems[name]
        leads = 1 if data.problem.is_map else shape.frames - 1
        tokens = leads * configuration.tokens(name) ** len(shape.grid)
        held_out = round(data.counts.train * fraction)
        total += 2 * 4 * min(held_out, _POOL_TRAJECTORIES) * tokens * dim
        total += 4 * (held_out + data.counts.validation) * tokens * (dim + 1)
    return total


def _linear_paths(configuration: Configuration, shapes: Mapping[str, KeptShape]) -> int:
    """Numbers of the linear maps, fitted and trained: a plain matrix where there are walls, if it is not too large."""
    dim, total = configuration.model.latent.dim, 0
    for name, shape in shapes.items():
        count = configuration.tokens(name) ** len(shape.grid)
        walled = configuration.problems[name].usual_boundary != "periodic"
        if walled and count * dim > LARGEST_MATRIX:
            continue
        copies = 2 if configuration.linear_path(name) == "trained" else 1
        total += copies * ((count * dim) ** 2 if walled else count * dim**2)
    return total
