"""Networks of a few thousand weights, and batches for them.

Fresh networks have zero projections, behind which mistakes would hide: here all weights are random.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ups.data.batch import Batch
from ups.models.build import Description, build_model
from ups.runtime.ranks import Ranks

GRID, TOKENS, LATENT_DIM, SCALARS = 32, 8, 4, 2
NETWORK = {"width": 16, "depth": 1, "heads": 2, "ratio": 2}


def describe(kind: str, **changes: Any) -> Description:
    """The description of a tiny network of one axis."""
    shared: Description = {"kind": kind, "grid": [GRID], "tokens": [TOKENS], "latent_dim": LATENT_DIM}
    if kind in {"autoencoder", "codec"}:
        return shared | {"channels": 1, "encoder": NETWORK, "decoder": NETWORK} | changes
    return shared | {"scalars": SCALARS, "network": NETWORK} | changes


def fresh(kind: str, *, seed: int = 0, **changes: Any) -> nn.Module:
    """A network as training starts it."""
    torch.manual_seed(seed)
    return build_model(describe(kind, **changes))


def build(kind: str, *, seed: int = 0, scale: float = 0.2, **changes: Any) -> nn.Module:
    """A network all of whose weights and statistics are random."""
    model = fresh(kind, seed=seed, **changes)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(scale * torch.randn_like(parameter))
        for buffer in model.state_dict(keep_vars=True).values():
            if not isinstance(buffer, nn.Parameter):
                buffer.uniform_(0.5, 1.5)
    return model


def waves(count: int, frames: int, *, grid: int = GRID, seed: int = 0) -> Tensor:
    """Travelling sums of three sines [count, frames, grid, 1]: smooth, periodic, of unit size."""
    generator = torch.Generator().manual_seed(seed)
    amplitude, phase, speed = torch.rand(3, count, 3, 1, 1, generator=generator)
    x = (torch.arange(grid) + 0.5) / grid
    t = torch.arange(frames)[:, None] * 0.05
    wavenumber = torch.arange(1, 4)[:, None, None]
    angle = 2 * torch.pi * (wavenumber * (x - speed * t) + phase)
    return ((0.5 + amplitude) * angle.sin()).sum(dim=1).unsqueeze(-1)


def random_batch(count: int, frames: int = 2, *, seed: int = 0) -> Batch:
    """Waves as fields, normal latents and predictions."""
    generator = torch.Generator().manual_seed(seed)
    return Batch(
        scalars=torch.tensor([-3.0, -4.6]).expand(count, -1),
        fields=waves(count, frames, seed=seed),
        latents=torch.randn(count, frames, TOKENS, LATENT_DIM, generator=generator),
        predictions=torch.randn(count, TOKENS, LATENT_DIM, generator=generator),
    )


def alone() -> Ranks:
    """A world of one rank on the CPU."""
    return Ranks(0, 1, torch.device("cpu"))
