"""Bytes a stage will write, from its configuration alone, so that a full disk refuses before work begins."""

from ups.config import Configuration
from ups.config.schema import StageName, Transformer

_HEADROOM = 1.1
_METADATA = 200_000


def predicted_bytes(stage: StageName, configuration: Configuration, frames: int, points: int) -> int:
    """Bytes of a stage's artifact and of its checkpoints while it works.

    Args:
        frames: frames kept per trajectory.
        points: grid points kept.
    """
    data, model = configuration.data, configuration.model
    rows = data.trajectories.train + data.trajectories.validation + data.trajectories.test
    latent = model.latent.tokens * model.latent.dim
    match stage:
        case "download":
            return int(_HEADROOM * rows * frames * points * 4) + _METADATA
        case "cache_encode":
            return int(_HEADROOM * rows * frames * (points + latent) * 2) + _METADATA
        case "autoencoder":
            parameters = _parameters(model.encoder) + _parameters(model.decoder)
        case "operator":
            parameters = _parameters(model.operator)
        case "diffusion" | "consistency":
            parameters = _parameters(model.denoiser)
        case "evaluate":
            return 20_000_000
    # Weights of the artifact, and two checkpoints of weights, average and two moments, one being replaced.
    return int(_HEADROOM * parameters * 4 * (1 + 3 * 4)) + _METADATA


def _parameters(size: Transformer) -> int:
    """Upper estimate of a transformer's parameters: attention, MLP, adaptive norm, embeddings."""
    per_block = size.width**2 * (4 + 2 * size.ratio + 6) + 20 * size.width
    return per_block * (size.depth + 1) + 8 * size.width**2 + 512 * size.width
