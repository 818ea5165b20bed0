"""The Fourier neural operator: pointwise maps, and one matrix per wave number.

Layer for layer that of the `neuraloperator` package 2.0 without its grid embedding, which would break the shift
symmetry (tested equal to it, weight by weight). The package itself is no dependency: it needs wandb, pytest and
scipy to be imported, and its complex weights fit neither fused AdamW nor mixed precision. Here they are real pairs.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ups.models.conditioning import ProblemConditioning
from ups.models.embedding import WallEmbedding, module_key
from ups.models.shape import ProblemShape


class SpectralConvolution(nn.Module):
    """[B, *tokens, W] to [B, *tokens, W]: wave number k is multiplied by its own matrix R_k, those beyond `modes` / 2
    are dropped (Li et al. 2021, arXiv:2010.08895, equations 4 and 5).

    R_k is [wave numbers, inputs, outputs, real and imaginary part]; of the last axis wave numbers 0 to modes / 2 are
    kept, of the others -modes / 2 to modes / 2 - 1, in this order. The variance of R_k keeps that of the field.
    """

    def __init__(self, axes: int, width: int, modes: int) -> None:
        super().__init__()
        self.axes, self.modes = axes, modes
        kept = (*(modes,) * (axes - 1), modes // 2 + 1)
        self.weight = nn.Parameter(torch.randn(*kept, width, width, 2) * (2 * width) ** -0.5)
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        space = tuple(range(1, 1 + self.axes))
        # A transform in less than float32 is not to be had on every device.
        waves = torch.fft.rfftn(x.float(), dim=space)
        turned, half = space[:-1], (self.modes // 2,) * (self.axes - 1)
        if turned:
            waves = waves.roll(half, turned)
        region = (slice(None), *(slice(self.modes),) * (self.axes - 1), slice(self.modes // 2 + 1))
        product = torch.einsum("b...i,...io->b...o", waves[region], torch.view_as_complex(self.weight))
        kept = torch.zeros_like(waves)
        kept[region] = product
        if turned:
            kept = kept.roll(tuple(-h for h in half), turned)
        return torch.fft.irfftn(kept, s=x.shape[1:-1], dim=space) + self.bias


class _Layer(nn.Module):
    """A spectral convolution beside a pointwise map, then a pointwise perceptron beside a gate."""

    def __init__(self, axes: int, width: int, modes: int) -> None:
        super().__init__()
        self.spectral = SpectralConvolution(axes, width, modes)
        self.skip = nn.Linear(width, width, bias=False)
        self.inner, self.outer = nn.Linear(width, width // 2), nn.Linear(width // 2, width)
        self.gate = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor, *, last: bool) -> Tensor:
        """The last layer ends without its two activations."""
        y = self.spectral(x) + self.skip(x)
        y = y if last else F.gelu(y)
        y = self.outer(F.gelu(self.inner(y))) + self.gate * x
        return y if last else F.gelu(y)


class FourierNetwork(nn.Module):
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
        modes: int,
        padding: int,
    ) -> None:
        """padding: tokens of zeros beyond the end of an axis with walls, for what Fourier makes periodic.

        Problems of one number of axes share all layers.
        """
        super().__init__()
        self.shapes, self.padding = dict(shapes), padding
        self.lift = nn.Sequential(nn.Linear(inputs, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.condition = ProblemConditioning(shapes, width, extra_scalars)
        self.walls = nn.ModuleDict(
            {module_key(name): WallEmbedding(shape.layout, width) for name, shape in shapes.items()}
        )
        self.blocks = nn.ModuleDict(
            {
                f"axes_{axes}": nn.ModuleList(_Layer(axes, width, modes) for _ in range(depth))
                for axes in sorted({len(shape.grid) for shape in shapes.values()})
            }
        )
        self.projection = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU())
        self.output = nn.Linear(2 * width, outputs)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, tokens: Tensor, scalars: Tensor, problem: str) -> Tensor:
        shape = self.shapes[problem]
        x = self.walls[module_key(problem)](self.lift(tokens) + self.condition(scalars, problem).unsqueeze(1))
        x = x.unflatten(1, shape.tokens)
        axes, padding = len(shape.tokens), 0 if shape.boundary == "periodic" else self.padding
        x = F.pad(x, (0, 0, *(0, padding) * axes))
        layers = list(self.blocks[f"axes_{axes}"].children())
        for layer in layers:
            x = layer(x, last=layer is layers[-1])
        inside = x[(slice(None), *(slice(n) for n in shape.tokens))]
        return self.output(self.projection(inside)).flatten(1, -2)
