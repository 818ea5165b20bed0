"""The best linear map of a time step, fitted by least squares: a path beside the network, and a row of its own.

Between periodic boundaries it is block-circulant over the tokens, z'_k = S_k z_k for every wave number k of the
token grid; with walls it is a plain matrix.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ups.config.networks import LARGEST_MATRIX
from ups.models.shape import ProblemShape
from ups.models.token_grid import TokenGrid


class LinearPath(nn.Module):
    """(S - 1) z for tokens z [B, K, d] of one problem; zero until it is fitted.

    The fit stays as it is; `change`, which may be trained, is added to it.
    """

    fitted: Tensor
    change: nn.Parameter | None

    def __init__(self, token_grid: TokenGrid, latent_dim: int, *, trained: bool) -> None:
        super().__init__()
        self.tokens, self.circulant = token_grid.tokens, all(token_grid.periodic)
        if self.circulant:
            shape = (*token_grid.tokens, latent_dim, latent_dim)  # one block per displacement
        else:
            shape = (token_grid.token_count * latent_dim,) * 2
        self.register_buffer("fitted", torch.zeros(shape))
        self.change = nn.Parameter(torch.zeros(shape)) if trained else None

    def forward(self, latents: Tensor) -> Tensor:
        """(S - 1) z of the map as it is now."""
        return self._product(self.fitted if self.change is None else self.fitted + self.change, latents)

    def as_fitted(self, latents: Tensor) -> Tensor:
        """(S - 1) z of the map as it was fitted."""
        return self._product(self.fitted, latents)

    def _product(self, kernel: Tensor, latents: Tensor) -> Tensor:
        if not self.circulant:
            return (latents.flatten(1) @ kernel).view_as(latents)
        axes = tuple(range(len(self.tokens)))
        waves = torch.fft.rfftn(latents.unflatten(1, self.tokens), dim=tuple(1 + a for a in axes))
        blocks = torch.fft.rfftn(kernel, dim=axes)
        moved = torch.einsum("b...i,...ij->b...j", waves, blocks)
        return torch.fft.irfftn(moved, s=self.tokens, dim=tuple(1 + a for a in axes)).flatten(1, -2)


class LeastSquares:
    """Sums over pairs of states from which a `LinearPath` is fitted; float64."""

    def __init__(self, path: LinearPath) -> None:
        self.path = path
        self.square: Tensor | float = 0.0
        self.product: Tensor | float = 0.0

    def add(self, before: Tensor, after: Tensor, weight: Tensor) -> None:
        """Pairs [B, K, d], each weighted by [B]: the squared error counts weight^2 times."""
        scale = weight.double().view(-1, 1, 1)
        first, second = before.double() * scale, (after.double() - before.double()) * scale
        if self.path.circulant:
            axes = tuple(range(1, 1 + len(self.path.tokens)))
            first, second = (
                torch.fft.rfftn(z.unflatten(1, self.path.tokens), dim=axes).flatten(1, -2).transpose(0, 1)
                for z in (first, second)
            )
        else:
            first, second = first.flatten(1), second.flatten(1)
        self.square = self.square + first.mH @ first
        self.product = self.product + first.mH @ second

    def fit(self, ridge: float = 1e-8) -> None:
        """Set the path's fitted map; `ridge` is relative to the mean square of the states."""
        assert isinstance(self.square, Tensor)
        assert isinstance(self.product, Tensor)
        size = self.square.shape[-1]
        level = self.square.diagonal(dim1=-2, dim2=-1).real.mean()
        damped = self.square + ridge * level * torch.eye(size, dtype=self.square.dtype, device=level.device)
        solution = torch.linalg.solve(damped, self.product)
        if self.path.circulant:
            tokens = self.path.tokens
            waves = (*tokens[:-1], tokens[-1] // 2 + 1)
            axes = tuple(range(len(tokens)))
            solution = torch.fft.irfftn(solution.unflatten(0, waves), s=tokens, dim=axes)
        self.path.fitted.copy_(solution)


def fits(token_grid: TokenGrid, latent_dim: int) -> bool:
    """Whether a linear path of this size is possible."""
    return all(token_grid.periodic) or math.prod((token_grid.token_count, latent_dim)) <= LARGEST_MATRIX


class NoNetwork(nn.Module):
    """The network of an operator that is its linear path alone: zero."""

    def __init__(
        self, shapes: Mapping[str, ProblemShape], *, inputs: int, outputs: int, extra_scalars: int
    ) -> None:
        super().__init__()

    def forward(self, tokens: Tensor, scalars: Tensor, problem: str) -> Tensor:
        return torch.zeros_like(tokens)


network = NoNetwork
