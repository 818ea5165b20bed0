"""The transformer block shared by encoder, decoder, operator and denoiser.

Pre-norm attention and MLP; where a conditioning vector is given, adaptive layer norm with zero-initialised
gates (DiT, Peebles & Xie 2022, arXiv:2212.09748, section 3.2 "adaLN-Zero"), so that a fresh block is the
identity. Queries and keys are RMS-normalised per head: scores stay bounded at any learning rate.

Legend of shape suffixes: B batch, K tokens, Q queries, W width, H heads, D head_dim.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ups.models.rotary import rotate


class Attention(nn.Module):
    """Multi-head attention of queries [B, Q, W] to tokens [B, K, W] with rotary positions.

    Queries [1, Q, W] serve a whole batch and are projected once.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.output = nn.Linear(width, width, bias=False)
        self.query_norm = nn.RMSNorm(width // heads)
        self.key_norm = nn.RMSNorm(width // heads)

    def forward(self, x_BQW: Tensor, tokens_BKW: Tensor, query_table: Tensor, key_table: Tensor) -> Tensor:
        q_BHQD = self.query(x_BQW).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k_BKW, v_BKW = self.key_value(tokens_BKW).chunk(2, dim=-1)
        k_BHKD = k_BKW.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        v_BHKD = v_BKW.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        q_BHQD = rotate(self.query_norm(q_BHQD), query_table)
        k_BHKD = rotate(self.key_norm(k_BHKD), key_table)
        q_BHQD = q_BHQD.expand(len(k_BHKD), -1, -1, -1)
        y_BHQD = F.scaled_dot_product_attention(q_BHQD, k_BHKD, v_BHKD)
        return self.output(y_BHQD.transpose(1, 2).flatten(-2))


class FeedForward(nn.Module):
    """Two-layer GELU perceptron, [..., W] to [..., W]."""

    def __init__(self, width: int, ratio: int) -> None:
        super().__init__()
        self.inner = nn.Linear(width, ratio * width)
        self.output = nn.Linear(ratio * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(F.gelu(self.inner(x), approximate="tanh"))


class Block(nn.Module):
    """One transformer block on tokens [B, K, W], optionally conditioned on [B, C].

    Without conditioning the residual branches start at zero through their output projections; with it,
    through the gates. Either way a fresh block is the identity.
    """

    def __init__(self, width: int, heads: int, ratio: int, conditioning: int = 0) -> None:
        super().__init__()
        affine = conditioning == 0
        self.attention_norm = nn.LayerNorm(width, elementwise_affine=affine)
        self.attention = Attention(width, heads)
        self.feed_forward_norm = nn.LayerNorm(width, elementwise_affine=affine)
        self.feed_forward = FeedForward(width, ratio)
        self.modulation = nn.Linear(conditioning, 6 * width) if conditioning else None
        if self.modulation is not None:
            nn.init.zeros_(self.modulation.weight)
            nn.init.zeros_(self.modulation.bias)
        else:
            nn.init.zeros_(self.attention.output.weight)
            nn.init.zeros_(self.feed_forward.output.weight)

    def forward(self, x_BKW: Tensor, table: Tensor, condition_BC: Tensor | None = None) -> Tensor:
        if self.modulation is None:
            normed = self.attention_norm(x_BKW)
            x_BKW = x_BKW + self.attention(normed, normed, table, table)
            return x_BKW + self.feed_forward(self.feed_forward_norm(x_BKW))
        if condition_BC is None:
            raise ValueError("a conditioned block needs a condition")
        scale_a, shift_a, gate_a, scale_f, shift_f, gate_f = (
            self.modulation(F.silu(condition_BC)).unsqueeze(1).chunk(6, dim=-1)
        )
        normed = torch.addcmul(shift_a, self.attention_norm(x_BKW), 1 + scale_a)
        x_BKW = torch.addcmul(x_BKW, gate_a, self.attention(normed, normed, table, table))
        normed = torch.addcmul(shift_f, self.feed_forward_norm(x_BKW), 1 + scale_f)
        return torch.addcmul(x_BKW, gate_f, self.feed_forward(normed))
