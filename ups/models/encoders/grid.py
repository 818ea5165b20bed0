"""Encoder: fields on a regular grid to latent tokens."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ups.models.embedding import PatchEmbedding, PositionEmbedding, module_key
from ups.models.float32 import Float32Linear
from ups.models.shape import ProblemShape
from ups.models.transformer import Block


class GridEncoder(nn.Module):
    """An orthonormal linear map of each patch, and a transformer's correction of it, zero at first.

    The linear map has as many rows as a token has channels. With at least as many channels as a patch has
    values it loses nothing, and there is nothing to learn; with fewer it starts at the principal components of
    the train split's patches (`ups.stages.autoencoder`), the best that a linear map can do.

    Attributes:
        points: at which a frame is seen, by an encoder of points; None: its whole grid is.

    One class for every number of space axes and every mix of problems. Shifting a periodic field by one patch
    shifts the tokens by one and changes nothing else (tested), because positions enter only through periodic
    rotations.
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
        self.points: int | None = None
        self.token_grids = {name: shape.token_grid for name, shape in shapes.items()}
        self.linear = nn.ModuleDict(
            {
                module_key(name): _orthonormal(shape.token_grid.patch_points * shape.channels, latent_dim)
                for name, shape in shapes.items()
            }
        )
        self.correction = _Correction(shapes, latent_dim, width, depth, heads, ratio) if depth else None

    def forward(self, fields: Tensor, problem: str, known: Tensor | None = None) -> Tensor:
        """Fields [B, *grid, C] in normalised units to latents [B, K, latent_dim].

        known: [B, C] bool, which fields are known (the others must be 0); None: all.
        """
        patches = self.token_grids[problem].patchify(fields)
        latents = self.linear[module_key(problem)](patches)
        return latents if self.correction is None else latents + self.correction(patches, problem, known)

    def from_points(
        self, values: Tensor, coordinates: Tensor, problem: str, present: Tensor | None = None
    ) -> Tensor:
        """Values [n, t, P, C] at coordinates [n, P, axes] in domain lengths to fields on the grid [n, t, *grid, C].

        present: [n, P] bool, false where a shorter set of points was filled up; None: all are there.

        Raises:
            NotImplementedError: this is no encoder of points.
        """
        raise NotImplementedError


def encoder(
    shapes: Mapping[str, ProblemShape], *, latent_dim: int, width: int, depth: int, heads: int, ratio: int
) -> GridEncoder:
    """See `ups.models.autoencoder`."""
    return GridEncoder(shapes, latent_dim=latent_dim, width=width, depth=depth, heads=heads, ratio=ratio)


class _Correction(nn.Module):
    """Transformer blocks on the patches [B, K, patch values] to what is added to the latents."""

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
        self.embeddings = nn.ModuleDict(
            {
                module_key(name): PatchEmbedding(
                    shape.token_grid, channels=shape.channels, partly_known=shape.partly_known, width=width
                )
                for name, shape in shapes.items()
            }
        )
        self.positions = nn.ModuleDict(
            {
                module_key(name): PositionEmbedding(shape.token_grid, width, heads)
                for name, shape in shapes.items()
            }
        )
        self.blocks = nn.ModuleList(Block(width, heads, ratio) for _ in range(depth))
        self.output = Float32Linear(width, latent_dim)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, patches: Tensor, problem: str, known: Tensor | None) -> Tensor:
        position = self.positions[module_key(problem)]
        x = position(self.embeddings[module_key(problem)](patches, known))
        for block in self.blocks:
            x = block(x, position)
        return self.output(x)


def _orthonormal(values: int, channels: int) -> nn.Linear:
    """The first `channels` values as they are; channels beyond the values stay 0."""
    linear = Float32Linear(values, channels, bias=False)
    with torch.no_grad():
        linear.weight.copy_(torch.eye(channels, values))
    return linear
