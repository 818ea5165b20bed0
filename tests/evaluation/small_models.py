"""Tiny networks for a mix of a wave on a line and a map on a square."""

import torch
from tiny import LATENT_DIM as DIM
from tiny import LINE, SQUARE, build
from torch import Tensor

from ups.models.codec import Codec
from ups.models.operators import LatentOperator
from ups.models.residual import ResidualNetwork

__all__ = ["DIM", "KNOWN", "SCALARS", "SHAPES", "codec", "first_frames", "held_known", "operator", "residual"]

SHAPES = {"wave": LINE, "map": SQUARE}
SCALARS = {"wave": torch.tensor([-3.0, -4.6]), "map": torch.tensor([0.3])}
KNOWN = {"wave": None, "map": torch.tensor([True, False])}


def codec() -> Codec:
    model = build("codec", seed=4, shapes=SHAPES)
    assert isinstance(model, Codec)
    return model


def operator() -> LatentOperator:
    # Small weights: forecasts of a random operator must not blow up within a few steps.
    model = build("operator", seed=5, scale=0.05, shapes=SHAPES)
    assert isinstance(model, LatentOperator)
    return model.requires_grad_(False)


def residual(kind: str) -> ResidualNetwork:
    model = build(kind, seed=6, scale=0.05, shapes=SHAPES)
    assert isinstance(model, ResidualNetwork)
    return model.requires_grad_(False)


def first_frames(problem: str, count: int) -> Tensor:
    """[count, *grid, C] of unit size; what is not known is 0."""
    shape, known = SHAPES[problem], KNOWN[problem]
    generator = torch.Generator().manual_seed(1)
    frames = torch.randn(count, *shape.grid, shape.channels, generator=generator)
    return frames if known is None else frames * known


def held_known(problem: str, count: int) -> Tensor | None:
    """[count, C], or None where all is known."""
    known = KNOWN[problem]
    return None if known is None else known.expand(count, -1)
