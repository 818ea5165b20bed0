"""The regular grid of latent tokens over the unit domain, in any number of space axes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ups.models.rotary import rotation

_WALL_HARMONICS = 4


@dataclass(frozen=True)
class TokenGrid:
    """`grid` field points per axis, grouped into `tokens` patches per axis.

    Points sit at cell centres (i + 1/2) / n, the convention of PDEBench; a token sits at the centre of
    its patch. Domains of other lengths are scaled to the unit domain.

    Attributes:
        periodic: which axes wrap around; the others have walls.
    """

    grid: tuple[int, ...]
    tokens: tuple[int, ...]
    periodic: tuple[bool, ...]

    def __post_init__(self) -> None:
        if not len(self.grid) == len(self.tokens) == len(self.periodic) or any(
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

    def unpatchify(self, patches: Tensor) -> Tensor:
        """[B, K, patch_points * C] to [B, *grid, C]: the inverse of `patchify`."""
        split = patches.reshape(patches.shape[0], *self.tokens, *self.patch, -1)
        axes = range(self.axes)
        order = [
            0,
            *(place for axis in axes for place in (1 + axis, 1 + self.axes + axis)),
            2 * self.axes + 1,
        ]
        return split.permute(order).reshape(patches.shape[0], *self.grid, split.shape[-1])

    def token_positions(self) -> Tensor:
        """[K, axes] in domain lengths."""
        return cell_centres(self.tokens)

    def rotation(self, coordinates: Tensor, head_dim: int, highest: int) -> Tensor:
        """The rotation table of coordinates [n, axes]; see `ups.models.rotary`."""
        return rotation(coordinates, head_dim, highest, self.periodic)

    def token_rotation(self, head_dim: int) -> Tensor:
        """The rotation table of the tokens, up to their Nyquist frequency."""
        return self.rotation(self.token_positions(), head_dim, max(self.tokens) // 2)

    @property
    def wall_feature_count(self) -> int:
        """Width of `wall_features`; 0 if every axis is periodic."""
        return 2 * _WALL_HARMONICS * self.periodic.count(False)

    def wall_features(self, coordinates: Tensor) -> Tensor:
        """Where coordinates [n, axes] lie between the walls: sin and cos of pi k x, [n, wall_feature_count].

        Relative positions alone cannot say it. Periodic axes have none: their shift symmetry stays exact.
        """
        walled = [axis for axis, wraps in enumerate(self.periodic) if not wraps]
        harmonics = torch.arange(1, _WALL_HARMONICS + 1, device=coordinates.device)
        angles = torch.pi * coordinates[:, walled].double().unsqueeze(-1) * harmonics
        features = torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(-2)
        return features.to(torch.get_default_dtype())


def cell_centres(shape: Sequence[int]) -> Tensor:
    """Cell centres of a regular grid on the unit domain: [prod(shape), len(shape)], C order, float32."""
    axes = [(torch.arange(n, dtype=torch.float64) + 0.5) / n for n in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, len(axes)).float()
