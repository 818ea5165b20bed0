"""Encoder: fields on a regular grid to latent tokens."""

import torch
from torch import Tensor, nn

from ups.models.rotary import rotation
from ups.models.token_grid import TokenGrid
from ups.models.transformer import Block


class GridEncoder(nn.Module):
    """Patch embedding, transformer blocks, projection to the latent channels.

    One class for every number of space axes: the layout is in `TokenGrid`. Shifting a periodic field by
    one patch shifts the tokens by one and changes nothing else (tested), because positions enter only
    through periodic rotations.
    """

    key_table: Tensor

    def __init__(
        self,
        layout: TokenGrid,
        *,
        channels: int,
        latent_dim: int,
        width: int,
        depth: int,
        heads: int,
        ratio: int,
    ) -> None:
        super().__init__()
        self.layout = layout
        self.embedding = nn.Linear(layout.patch_points * channels, width)
        self.blocks = nn.ModuleList(Block(width, heads, ratio) for _ in range(depth))
        self.output = nn.Linear(width, latent_dim)
        table = rotation(layout.token_positions(), width // heads, max(layout.tokens) // 2)
        self.register_buffer("key_table", table, persistent=False)

    def forward(self, fields: Tensor) -> Tensor:
        """Fields [B, *grid, C] in normalised units to latents [B, K, latent_dim]."""
        x = self.embedding(self.layout.patchify(fields))
        for block in self.blocks:
            x = block(x, self.key_table)
        return self.output(x)


def query_features(coordinates: Tensor, tokens: tuple[int, ...], harmonics: int) -> Tensor:
    """Where a query lies inside its patch: sines and cosines with the token spacing as period.

    coordinates [Q, axes] in domain lengths; returns [Q, 2 * axes * harmonics]. Equal for points that
    differ by a whole patch, so the decoder too commutes with patch shifts.
    """
    spacing = torch.tensor(tokens, dtype=torch.float64, device=coordinates.device)
    phase = 2 * torch.pi * coordinates.double() * spacing
    angles = phase.unsqueeze(-1) * torch.arange(1, harmonics + 1, device=coordinates.device)
    return torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(-2).to(torch.get_default_dtype())
