"""The PDE transformer on latent tokens, body of both the operator and the denoiser."""

from torch import Tensor, nn

from ups.models.conditioning import ScalarEmbedding
from ups.models.rotary import rotation
from ups.models.token_grid import TokenGrid
from ups.models.transformer import Block


class LatentTransformer(nn.Module):
    """Tokens [B, K, inputs] and scalars [B, S] to tokens [B, K, outputs]; zero for a fresh network.

    The output projection is zero-initialised. (The first implementation put a LayerNorm on the residual:
    it changes every token by RMS 1 at the start and costs most of the training to undo.)
    """

    table: Tensor

    def __init__(
        self,
        layout: TokenGrid,
        *,
        inputs: int,
        outputs: int,
        scalars: int,
        width: int,
        depth: int,
        heads: int,
        ratio: int,
    ) -> None:
        super().__init__()
        self.embedding = nn.Linear(inputs, width)
        self.condition = ScalarEmbedding(scalars, width)
        self.blocks = nn.ModuleList(Block(width, heads, ratio, conditioning=width) for _ in range(depth))
        self.output = nn.Linear(width, outputs)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)
        table = rotation(layout.token_positions(), width // heads, max(layout.tokens) // 2)
        self.register_buffer("table", table, persistent=False)

    def forward(self, tokens: Tensor, scalars: Tensor) -> Tensor:
        condition = self.condition(scalars)
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x, self.table, condition)
        return self.output(x)
