"""Encoder: fields on a regular grid to latent tokens."""

from collections.abc import Mapping

from torch import Tensor, nn

from ups.models.embedding import PatchEmbedding, PositionEmbedding, module_key
from ups.models.shape import ProblemShape
from ups.models.transformer import Block


class GridEncoder(nn.Module):
    """Patch embedding, transformer blocks, projection to the latent channels.

    One class for every number of space axes and every mix of problems: the layout is in `TokenGrid`, the
    problem's own part in `PatchEmbedding`. Shifting a periodic field by one patch shifts the tokens by one and
    changes nothing else (tested), because positions enter only through periodic rotations.
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
        self.embeddings = nn.ModuleDict(
            {
                module_key(name): PatchEmbedding(
                    shape.layout, channels=shape.channels, partly_known=shape.partly_known, width=width
                )
                for name, shape in shapes.items()
            }
        )
        self.positions = nn.ModuleDict(
            {
                module_key(name): PositionEmbedding(shape.layout, width, heads)
                for name, shape in shapes.items()
            }
        )
        self.blocks = nn.ModuleList(Block(width, heads, ratio) for _ in range(depth))
        self.output = nn.Linear(width, latent_dim)

    def forward(self, fields: Tensor, problem: str, known: Tensor | None = None) -> Tensor:
        """Fields [B, *grid, C] in normalised units to latents [B, K, latent_dim].

        known: [B, C] bool, which fields are known (the others must be 0); None: all.
        """
        position = self.positions[module_key(problem)]
        x = position(self.embeddings[module_key(problem)](fields, known))
        for block in self.blocks:
            x = block(x, position.table)
        return self.output(x)
