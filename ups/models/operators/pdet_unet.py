"""A PDE transformer with token down- and upsampling: few tokens where the field is seen as a whole.

Two neighbours along every axis become one token by a linear map, blocks run on the coarser grids, and on the way
up each level's tokens come back beside what was kept of them (PDE-Transformer, Holzschuh et al. 2025,
arXiv:2505.24717, figure 2).
"""

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor, nn

from ups.models.conditioning import ProblemConditioning
from ups.models.embedding import PositionEmbedding, module_key
from ups.models.float32 import Float32Linear
from ups.models.shape import ProblemShape
from ups.models.token_grid import TokenGrid
from ups.models.transformer import Block


class UNetNetwork(nn.Module):
    """Tokens [B, K, inputs] and scalars [B, S] to tokens [B, K, outputs]; zero for a fresh network."""

    def __init__(
        self,
        shapes: Mapping[str, ProblemShape],
        *,
        inputs: int,
        outputs: int,
        extra_scalars: int,
        width: int,
        depth: int,
        levels: int,
        heads: int,
        ratio: int,
        window: int | None = None,
        channel_separated: bool = False,
    ) -> None:
        """depth: blocks on each level, on the way down and on the way up. levels: how often tokens are halved.

        window: see `ups.models.windows`; of as many tokens on every level.
        """
        super().__init__()
        self.embedding = Float32Linear(inputs, width)
        self.condition = ProblemConditioning(shapes, width, extra_scalars)
        # Grids of tokens as grids of points, whose patches are the tokens that become one.
        self.grids = {
            name: [_coarser(shape.token_grid, level) for level in range(levels + 1)]
            for name, shape in shapes.items()
        }
        self.positions = nn.ModuleDict(
            {
                module_key(name): nn.ModuleList(
                    PositionEmbedding(grid, width, heads, window) for grid in grids
                )
                for name, grids in self.grids.items()
            }
        )

        def blocks(first: int) -> nn.ModuleList:
            """first: number of the first one on its level."""
            return nn.ModuleList(
                Block(
                    width, heads, ratio, width, channel_separated=channel_separated, shifted=number % 2 == 1
                )
                for number in range(first, first + depth)
            )

        self.down = nn.ModuleList(blocks(0) for _ in range(levels))
        self.middle = blocks(0)
        self.up = nn.ModuleList(blocks(depth) for _ in range(levels))
        axes = sorted({len(shape.grid) for shape in shapes.values()})
        self.merge = nn.ModuleList(
            nn.ModuleDict({str(n): Float32Linear(2**n * width, width) for n in axes}) for _ in range(levels)
        )
        self.split = nn.ModuleList(
            nn.ModuleDict({str(n): Float32Linear(width, 2**n * width) for n in axes}) for _ in range(levels)
        )
        self.output = Float32Linear(width, outputs)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, tokens: Tensor, scalars: Tensor, problem: str) -> Tensor:
        condition = self.condition(scalars, problem)
        positions = list(self.positions[module_key(problem)].children())
        grids, axes = self.grids[problem], str(len(self.grids[problem][0].tokens))

        def through(blocks: nn.Module, x: Tensor, level: int) -> Tensor:
            x = positions[level](x)
            for block in blocks.children():
                x = block(x, positions[level], condition)
            return x

        x, kept = self.embedding(tokens), []
        for level, (blocks, merge) in enumerate(zip(self.down, self.merge, strict=True)):
            x = through(blocks, x, level)
            kept.append(x)
            coarser = grids[level + 1]
            x = merge.get_submodule(axes)(coarser.patchify(x.unflatten(1, coarser.grid)))
        x = through(self.middle, x, len(kept))
        for level in reversed(range(len(kept))):
            parts = self.split[level].get_submodule(axes)(x)
            x = kept[level] + grids[level + 1].unpatchify(parts).flatten(1, -2)
            x = through(self.up[level], x, level)
        return self.output(x)


network = UNetNetwork


def _coarser(token_grid: TokenGrid, level: int) -> TokenGrid:
    """The token grid halved `level` times; its points are the tokens of the level before."""
    if level == 0:
        return token_grid
    before = tuple(n // 2 ** (level - 1) for n in token_grid.tokens)
    return replace(token_grid, grid=before, tokens=tuple(n // 2 for n in before))
