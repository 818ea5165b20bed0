"""Local convolution and attention in one block: neighbours by a kernel, the rest of the domain by attention."""

from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from ups.models.conditioning import ProblemConditioning
from ups.models.embedding import PositionEmbedding, module_key
from ups.models.float32 import Float32Linear
from ups.models.operators.convolution import TokenConvolution
from ups.models.operators.grid_network import by_axes, representatives
from ups.models.shape import ProblemShape
from ups.models.transformer import Block


class HybridNetwork(nn.Module):
    """Tokens [B, K, inputs] and scalars [B, S] to tokens [B, K, outputs]; zero for a fresh network."""

    def __init__(
        self,
        shapes: Mapping[str, ProblemShape],
        *,
        inputs: int,
        outputs: int,
        extra_scalars: int,
        width: int,
        dilations: Sequence[int],
        heads: int,
        ratio: int,
        window: int | None = None,
        channel_separated: bool = False,
    ) -> None:
        """dilations: of the convolution of each block; as many blocks. window: see `ups.models.windows`."""
        super().__init__()
        self.shapes = dict(shapes)
        self.embedding = Float32Linear(inputs, width)
        self.condition = ProblemConditioning(shapes, width, extra_scalars)
        self.positions = nn.ModuleDict(
            {
                module_key(name): PositionEmbedding(shape.token_grid, width, heads, window)
                for name, shape in shapes.items()
            }
        )
        self.convolutions = nn.ModuleList(
            nn.ModuleDict(
                {
                    key: TokenConvolution(len(shape.grid), width, dilation)
                    for key, shape in sorted(representatives(shapes).items())
                }
            )
            for dilation in dilations
        )
        self.blocks = nn.ModuleList(
            Block(width, heads, ratio, width, channel_separated=channel_separated, shifted=number % 2 == 1)
            for number in range(len(dilations))
        )
        self.output = Float32Linear(width, outputs)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, tokens: Tensor, scalars: Tensor, problem: str) -> Tensor:
        shape = self.shapes[problem]
        position = self.positions[module_key(problem)]
        condition = self.condition(scalars, problem)
        x = position(self.embedding(tokens) + condition.unsqueeze(1))
        for convolution, block in zip(self.convolutions, self.blocks, strict=True):
            local = convolution.get_submodule(by_axes(shape))
            y = local(x.transpose(0, 1).unflatten(0, shape.tokens), shape.boundary)
            x = x + F.gelu(y.flatten(0, len(shape.tokens) - 1).transpose(0, 1), approximate="tanh")
            x = block(x, position, condition)
        return self.output(x)


network = HybridNetwork
