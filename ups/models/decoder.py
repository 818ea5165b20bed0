"""Any-point decoder: latent tokens to field values at arbitrary coordinates."""

import math

from torch import Tensor, nn

from ups.models.encoder import query_features
from ups.models.rotary import rotation
from ups.models.token_grid import TokenGrid
from ups.models.transformer import Attention, Block, FeedForward


class AnyPointDecoder(nn.Module):
    """Transformer blocks on the tokens, then one cross-attention from query coordinates (UPT section 3.3).

    Queries attend by relative position, and their own features say where in a patch they lie, so any
    coordinate of the periodic unit domain can be asked for, on or off the training grid.
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
        self.head_dim = width // heads
        # Twice the tokens' Nyquist frequency: neighbours must be weighted smoothly within a patch.
        self.highest = max(layout.tokens)
        self.harmonics = math.ceil(max(layout.patch) / 2)
        self.embedding = nn.Linear(latent_dim, width)
        self.blocks = nn.ModuleList(Block(width, heads, ratio) for _ in range(depth))
        self.query = nn.Sequential(
            nn.Linear(2 * layout.axes * self.harmonics, width),
            nn.GELU(approximate="tanh"),
            nn.Linear(width, width),
        )
        self.gate = nn.Linear(width, width)
        self.cross_attention = Attention(width, heads)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, ratio)
        nn.init.zeros_(self.feed_forward.output.weight)
        self.output = nn.Linear(width, channels)
        positions = layout.token_positions()
        block_table = rotation(positions, self.head_dim, max(layout.tokens) // 2)
        self.register_buffer("block_table", block_table, persistent=False)
        self.register_buffer("key_table", rotation(positions, self.head_dim, self.highest), persistent=False)

    def forward(self, latents: Tensor, coordinates: Tensor) -> Tensor:
        """Latents [B, K, latent_dim] and coordinates [Q, axes] to values [B, Q, C], normalised units."""
        x = self.embedding(latents)
        for block in self.blocks:
            x = block(x, self.block_table)
        query = self.query(query_features(coordinates, self.layout.tokens, self.harmonics))
        query = query.unsqueeze(0)
        table = rotation(coordinates, self.head_dim, self.highest)
        y = self.gate(query) * self.cross_attention(query, x, table, self.key_table)
        y = y + self.feed_forward(self.feed_forward_norm(y))
        return self.output(y)
