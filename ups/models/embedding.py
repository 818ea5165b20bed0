"""What differs between the problems of one model: how fields become tokens, and where tokens are.

Everything else (blocks, attention, latent channels) is shared. A network keeps one embedding per problem, under
`module_key(problem)`.
"""

import torch
from torch import Tensor, nn

from ups.models.float32 import Float32Linear
from ups.models.token_grid import TokenGrid
from ups.models.windows import Windows, partition_of, visible_within


def module_key(problem: str) -> str:
    """Key of a problem's part in a module dictionary: its own name could be that of a method ("keys")."""
    return f"problem_{problem}"


class WallEmbedding(nn.Module):
    """An additive embedding of the tokens' place between walls.

    A problem without walls has none, so that its shift symmetry is exact.
    """

    features: Tensor

    def __init__(self, token_grid: TokenGrid, width: int) -> None:
        super().__init__()
        self.walls = (
            Float32Linear(token_grid.wall_feature_count, width, bias=False)
            if token_grid.wall_feature_count
            else None
        )
        features = token_grid.wall_features(token_grid.token_positions())
        self.register_buffer("features", features, persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens [B, K, W] with their place added."""
        return tokens if self.walls is None else tokens + self.walls(self.features)


class PositionEmbedding(WallEmbedding):
    """The embedding between walls, and what attention must know of the places of a problem's tokens."""

    table: Tensor
    shifted_table: Tensor
    visible: Tensor | None

    def __init__(self, token_grid: TokenGrid, width: int, heads: int, window: int | None = None) -> None:
        """window: tokens per axis that attend to each other; None: all."""
        super().__init__(token_grid, width)
        self.partition, self.shift = partition_of(token_grid, window), (window or 0) // 2
        rotation = token_grid.token_rotation(width // heads)
        for name, shift in (("table", 0), ("shifted_table", self.shift)):
            split = Windows(self.partition, shift, rotation).split(rotation)
            self.register_buffer(name, split, persistent=False)
        self.register_buffer("visible", visible_within(self.partition, self.shift), persistent=False)

    def windows(self, *, shifted: bool) -> Windows:
        """Windows of the tokens, or those that lie half a window further along every axis."""
        if shifted:
            return Windows(self.partition, self.shift, self.shifted_table, self.visible)
        return Windows(self.partition, 0, self.table)


class PatchEmbedding(nn.Module):
    """Patches of one problem to tokens: a linear map of each.

    Where a problem has frames that are known in part (a map), the pattern of what is known is embedded too;
    unknown values must be 0.
    """

    def __init__(self, token_grid: TokenGrid, *, channels: int, partly_known: bool, width: int) -> None:
        super().__init__()
        self.values = Float32Linear(token_grid.patch_points * channels, width)
        self.known = Float32Linear(channels, width, bias=False) if partly_known else None

    def forward(self, patches: Tensor, known: Tensor | None) -> Tensor:
        """Patches [B, K, values] and known [B, C] bool (None: all) to tokens [B, K, W]."""
        tokens = self.values(patches)
        if self.known is None:
            return tokens
        if known is None:
            known = torch.ones(len(patches), self.known.in_features, dtype=torch.bool, device=patches.device)
        return tokens + self.known(known.to(tokens.dtype)).unsqueeze(1)
