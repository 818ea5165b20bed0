"""The regular grid of latent tokens over a periodic unit domain, in any number of space axes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class TokenGrid:
    """`grid` field points per axis, grouped into `tokens` patches per axis.

    Points sit at cell centres (i + 1/2) / n, the convention of PDEBench; a token sits at the centre of
    its patch.
    """

    grid: tuple[int, ...]
    tokens: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.grid) != len(self.tokens) or any(
            g % t for g, t in zip(self.grid, self.tokens, strict=True)
        ):
            raise ValueError(f"token grid {self.tokens} does not divide field grid {self.grid}")

    @property
    def axes(self) -> int:
        return len(self.grid)

    @property
    def patch(self) -> tuple[int, ...]:
        return tuple(g // t for g, t in zip(self.grid, self.tokens, strict=True))

    @property
    def patch_points(self) -> int:
        return math.prod(self.patch)

    @property
    def token_count(self) -> int:
        return math.prod(self.tokens)

    def patchify(self, fields: Tensor) -> Tensor:
        """[B, *grid, C] to [B, K, patch_points * C]; tokens and points in C order."""
        batch, channels = fields.shape[0], fields.shape[-1]
        split = [batch]
        for tokens, patch in zip(self.tokens, self.patch, strict=True):
            split += [tokens, patch]
        axes = range(self.axes)
        order = [0, *(1 + 2 * axis for axis in axes), *(2 + 2 * axis for axis in axes), 2 * self.axes + 1]
        return fields.reshape(*split, channels).permute(order).reshape(batch, self.token_count, -1)

    def token_positions(self) -> Tensor:
        """[K, axes] in domain lengths."""
        return cell_centres(self.tokens)


def cell_centres(shape: Sequence[int]) -> Tensor:
    """Cell centres of a regular grid on the unit domain: [prod(shape), len(shape)], C order, float32."""
    axes = [(torch.arange(n, dtype=torch.float64) + 0.5) / n for n in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, len(axes)).float()
