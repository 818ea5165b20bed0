"""Any-point decoder: latent tokens to field values at arbitrary coordinates."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ups.models.embedding import PositionEmbedding, module_key
from ups.models.shape import ProblemShape
from ups.models.token_grid import TokenGrid
from ups.models.transformer import Attention, Block, FeedForward


def query_features(coordinates: Tensor, layout: TokenGrid) -> Tensor:
    """Where a query lies inside its patch: sines and cosines with the token spacing as period.

    coordinates [Q, axes] in domain lengths; returns [Q, sum over axes of (points of a patch - 1)]. Equal for
    points that differ by a whole patch, so the decoder too commutes with patch shifts.

    Sines to harmonic p // 2 and cosines to (p - 1) // 2 of a patch of p points: with a constant exactly as many
    functions as points. One more cosine, of harmonic p / 2, would be 0 at every point of the training grid: its
    weights would never train, and off the grid they would add noise (measured: 0.041 on the grid, 0.071 at
    twice its resolution, where leaving it out gives 0.045).
    """
    features = []
    for axis, (tokens, points) in enumerate(zip(layout.tokens, layout.patch, strict=True)):
        phase = 2 * torch.pi * coordinates[:, axis, None].double() * tokens
        sines = phase * torch.arange(1, points // 2 + 1, device=coordinates.device)
        cosines = phase * torch.arange(1, (points - 1) // 2 + 1, device=coordinates.device)
        features += [sines.sin(), cosines.cos()]
    return torch.cat(features, dim=-1).to(torch.get_default_dtype())


class QueryEmbedding(nn.Module):
    """Coordinates of one problem to queries: place in the patch, and place between walls."""

    key_table: Tensor

    def __init__(self, layout: TokenGrid, width: int, heads: int) -> None:
        super().__init__()
        self.layout = layout
        self.head_dim = width // heads
        # Twice the tokens' Nyquist frequency: neighbours must be weighted smoothly within a patch.
        self.highest = max(layout.tokens)
        self.network = nn.Sequential(
            nn.Linear(sum(layout.patch) - layout.axes + layout.wall_feature_count, width),
            nn.GELU(approximate="tanh"),
            nn.Linear(width, width),
        )
        keys = layout.rotation(layout.token_positions(), self.head_dim, self.highest)
        self.register_buffer("key_table", keys, persistent=False)

    def forward(self, coordinates: Tensor) -> tuple[Tensor, Tensor]:
        """Coordinates [Q, axes] to queries [1, Q, W] and their rotation table."""
        features = [query_features(coordinates, self.layout), self.layout.wall_features(coordinates)]
        table = self.layout.rotation(coordinates, self.head_dim, self.highest)
        return self.network(torch.cat(features, dim=-1)).unsqueeze(0), table


class AnyPointDecoder(nn.Module):
    """Transformer blocks on the tokens, then one cross-attention from query coordinates (UPT section 3.3).

    Queries attend by relative position, and their own features say where in a patch they lie, so any
    coordinate of the unit domain can be asked for, on or off the training grid. A problem's own parts are
    the query embedding and the linear map to its fields.
    """

    def __init__(
        self,
        shapes: Mapping[str, ProblemShape],
        *,
        latent_dim: int,
        width: int,
        depth: int,
        heads: int,
        ratio: int,
    ) -> None:
        super().__init__()
        self.embedding = nn.Linear(latent_dim, width)
        self.positions = nn.ModuleDict(
            {
                module_key(name): PositionEmbedding(shape.layout, width, heads)
                for name, shape in shapes.items()
            }
        )
        self.blocks = nn.ModuleList(Block(width, heads, ratio) for _ in range(depth))
        self.queries = nn.ModuleDict(
            {module_key(name): QueryEmbedding(shape.layout, width, heads) for name, shape in shapes.items()}
        )
        self.gate = nn.Linear(width, width)
        self.cross_attention = Attention(width, heads)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, ratio)
        nn.init.zeros_(self.feed_forward.output.weight)
        self.outputs = nn.ModuleDict(
            {module_key(name): nn.Linear(width, shape.channels) for name, shape in shapes.items()}
        )

    def forward(self, latents: Tensor, coordinates: Tensor, problem: str) -> Tensor:
        """Latents [B, K, latent_dim] and coordinates [Q, axes] to values [B, Q, C], normalised units."""
        key = module_key(problem)
        position, queries = self.positions[key], self.queries[key]
        x = position(self.embedding(latents))
        for block in self.blocks:
            x = block(x, position.table)
        query, table = queries(coordinates)
        y = self.gate(query) * self.cross_attention(query, x, table, queries.key_table)
        y = y + self.feed_forward(self.feed_forward_norm(y))
        return self.outputs[key](y)
