"""The PDE transformer on latent tokens."""

from collections.abc import Mapping

from torch import Tensor, nn

from ups.models.conditioning import ProblemConditioning
from ups.models.embedding import PositionEmbedding, module_key
from ups.models.float32 import Float32Linear
from ups.models.shape import ProblemShape
from ups.models.transformer import Block


class TransformerNetwork(nn.Module):
    """Tokens [B, K, inputs] and scalars [B, S] to tokens [B, K, outputs]; zero for a fresh network.

    The output projection is zero-initialised. (The first implementation put a LayerNorm on the residual:
    it changes every token by RMS 1 at the start and costs most of the training to undo.)
    """

    def __init__(
        self,
        shapes: Mapping[str, ProblemShape],
        *,
        inputs: int,
        outputs: int,
        extra_scalars: int,
        width: int,
        depth: int,
        heads: int,
        ratio: int,
        window: int | None = None,
        channel_separated: bool = False,
    ) -> None:
        """extra_scalars: conditioning scalars beside those of the problem. window: see `ups.models.windows`."""
        super().__init__()
        self.embedding = Float32Linear(inputs, width)
        self.condition = ProblemConditioning(shapes, width, extra_scalars)
        self.positions = nn.ModuleDict(
            {
                module_key(name): PositionEmbedding(shape.token_grid, width, heads, window)
                for name, shape in shapes.items()
            }
        )
        self.blocks = nn.ModuleList(
            Block(width, heads, ratio, width, channel_separated=channel_separated, shifted=number % 2 == 1)
            for number in range(depth)
        )
        self.output = Float32Linear(width, outputs)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, tokens: Tensor, scalars: Tensor, problem: str) -> Tensor:
        condition = self.condition(scalars, problem)
        position = self.positions[module_key(problem)]
        x = position(self.embedding(tokens))
        for block in self.blocks:
            x = block(x, position, condition)
        return self.output(x)


network = TransformerNetwork
