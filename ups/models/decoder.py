"""Any-point decoder: latent tokens to field values at arbitrary coordinates."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ups.models.embedding import PositionEmbedding, module_key
from ups.models.float32 import Float32Linear
from ups.models.interpolation import interpolate
from ups.models.shape import ProblemShape
from ups.models.transformer import Block


class AnyPointDecoder(nn.Module):
    """The transpose of the encoder's linear map, a transformer's correction of it, and interpolation.

    Tokens become the values of their patches, and the grid's values become those at any coordinate
    (`ups.models.interpolation`), on or off the training grid. Decoding the grid itself is one small matrix
    product per token.
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
        """depth: blocks of the correction; 0: none."""
        super().__init__()
        self.token_grids = {name: shape.token_grid for name, shape in shapes.items()}
        self.linear = nn.ModuleDict(
            {
                module_key(name): _transposed(latent_dim, shape.token_grid.patch_points * shape.channels)
                for name, shape in shapes.items()
            }
        )
        self.correction = _Correction(shapes, latent_dim, width, depth, heads, ratio) if depth else None

    def grid(self, latents: Tensor, problem: str) -> Tensor:
        """Latents [B, K, latent_dim] to values on the grid [B, *grid, C], normalised units."""
        values = self.linear[module_key(problem)](latents)
        if self.correction is not None:
            values = values + self.correction(latents, problem)
        return self.token_grids[problem].unpatchify(values)

    def forward(self, latents: Tensor, coordinates: Tensor | None, problem: str) -> Tensor:
        """Latents [B, K, latent_dim] and coordinates [Q, axes] to values [B, Q, C], normalised units.

        coordinates: None for the points of the grid, in C order.
        """
        values = self.grid(latents, problem)
        if coordinates is None:
            return values.flatten(1, -2)
        return interpolate(values, coordinates, self.token_grids[problem])


class _Correction(nn.Module):
    """Transformer blocks on the tokens [B, K, d] to what is added to the values of each patch."""

    def __init__(
        self,
        shapes: Mapping[str, ProblemShape],
        latent_dim: int,
        width: int,
        depth: int,
        heads: int,
        ratio: int,
    ) -> None:
        super().__init__()
        self.embedding = Float32Linear(latent_dim, width)
        self.positions = nn.ModuleDict(
            {
                module_key(name): PositionEmbedding(shape.token_grid, width, heads)
                for name, shape in shapes.items()
            }
        )
        self.blocks = nn.ModuleList(Block(width, heads, ratio) for _ in range(depth))
        self.outputs = nn.ModuleDict(
            {
                module_key(name): Float32Linear(width, shape.token_grid.patch_points * shape.channels)
                for name, shape in shapes.items()
            }
        )
        for output in self.outputs.parameters():
            nn.init.zeros_(output)

    def forward(self, latents: Tensor, problem: str) -> Tensor:
        position = self.positions[module_key(problem)]
        x = position(self.embedding(latents))
        for block in self.blocks:
            x = block(x, position)
        return self.outputs[module_key(problem)](x)


def _transposed(channels: int, values: int) -> nn.Linear:
    """The transpose of the encoder's first map."""
    linear = Float32Linear(channels, values, bias=False)
    with torch.no_grad():
        linear.weight.copy_(torch.eye(values, channels))
    return linear
