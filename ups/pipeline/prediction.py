"""Bytes a stage will write, from its configuration alone, so that a full disk refuses before work begins."""

import math

from ups.config import Configuration
from ups.config.schema import StageName, Transformer

_CHECKPOINTS = 3  # two are kept, and the next is written before the oldest goes
_COPIES = 4  # in a checkpoint: weights, their average, and Adam's two moments
_HDF5_BYTES = 8192
_HEADER_BYTES = 6000  # names, shapes and the description in a safetensors file
_MODELS_IN_TABLE = 8
_EXAMPLES = 3 * 4  # three trajectories: truth, two forecasts and a spread of each
_NUMBER_IN_TEXT = 21
_LOG_BYTES = 100_000
_FIGURES_BYTES = 2_000_000


def predicted_bytes(stage: StageName, configuration: Configuration, frames: int, points: int) -> int:
    """Bytes of a stage's artifact and, for a training, of its checkpoints while it works.

    Args:
        frames: frames kept per trajectory.
        points: grid points kept.
    """
    data, model = configuration.data, configuration.model
    counts = data.trajectories
    rows = counts.train + counts.validation + counts.test
    index_bytes = 3 * rows * (2 + len(str(rows)))  # lists of row numbers, in text
    match stage:
        case "download":
            # Stored on the source's grid; what reads it takes every n-th point.
            stored = data.solver_resolution if data.source == "generated" else points * data.space_stride
            return rows * frames * stored * 4 + _HDF5_BYTES + index_bytes
        case "cache_encode":
            slab = min(configuration.cache_encode.trajectories_per_chunk, rows)
            whole = math.ceil(rows / slab) * slab  # the last chunk is as long as the others
            text = 5000 + index_bytes + _NUMBER_IN_TEXT * (frames + points)
            values = whole * frames * (points + model.latent.tokens * model.latent.dim)
            return 2 * values + text + _weight_bytes(_autoencoder(configuration, points))
        case "autoencoder":
            parameters = _autoencoder(configuration, points)
        case "operator":
            parameters = _conditioned(model.operator, model.latent.dim, inputs=1)
        case "diffusion" | "consistency":
            parameters = _conditioned(model.denoiser, model.latent.dim, inputs=3)
        case "evaluate":
            numbers = 4 * frames + points + 2 * counts.test
            return (
                4 * _EXAMPLES * frames * points
                + _MODELS_IN_TABLE * _NUMBER_IN_TEXT * numbers
                + _FIGURES_BYTES
            )
    return _weight_bytes(parameters) * (1 + _CHECKPOINTS * _COPIES) + _LOG_BYTES


def _weight_bytes(parameters: int) -> int:
    return 4 * parameters + _HEADER_BYTES


def _autoencoder(configuration: Configuration, points: int) -> int:
    encoder, decoder = configuration.model.encoder, configuration.model.decoder
    dim, patch = configuration.model.latent.dim, points // configuration.model.latent.tokens
    encoding = encoder.depth * _block(encoder) + (patch + dim + 2) * encoder.width
    # The decoder's cross-attention and its MLP are one more block; query and gate three square matrices.
    decoding = (decoder.depth + 1) * _block(decoder) + 2 * decoder.width**2
    return encoding + decoding + (patch + dim + 8) * decoder.width


def _conditioned(size: Transformer, dim: int, *, inputs: int) -> int:
    """A latent transformer modulated by scalars: six vectors per block out of one of its own width."""
    embedding = size.width**2 + 48 * size.width + (inputs + 1) * dim * size.width
    return size.depth * (_block(size) + 6 * size.width * (size.width + 1)) + embedding


def _block(size: Transformer) -> int:
    """Four projections of attention, two of the MLP, norms and biases."""
    return size.width**2 * (4 + 2 * size.ratio) + size.width * (6 + size.ratio)
