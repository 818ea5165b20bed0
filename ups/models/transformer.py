"""The transformer block shared by encoder, decoder, operator and denoiser.

Pre-norm attention and MLP; where a conditioning vector is given, adaptive layer norm with zero-initialised
gates (DiT, Peebles & Xie 2022, arXiv:2212.09748, section 3.2 "adaLN-Zero"), so that a fresh block is the
identity. Queries and keys are RMS-normalised per head: scores stay bounded at any learning rate.

Queries, keys and values are one matrix product, and queries and keys are normalised and turned together: forward and
backward pass of four blocks launch 354 kernels, and not 550.

Rejected: the modulations of all blocks as one matrix product. It saves eleven more, no time that could be measured on a
CPU, and takes weights out of the block, which is what is sharded, compiled and computed again.

Rejected: a key for the kernel of `scaled_dot_product_attention`. On a CPU one alone is fast, and on a GPU, where bits are
not promised (`ups.runtime.ranks`), torch takes the fastest that knows precision and mask.

Legend of shape suffixes: B batch, K tokens, N windows, W width, H heads, D head_dim.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ups.models.embedding import PositionEmbedding
from ups.models.rotary import rotate
from ups.models.windows import Windows


class Attention(nn.Module):
    """Multi-head self-attention of tokens [B, K, W] within windows, with rotary positions.

    Channel-separated, a head's queries, keys and values are made of its own W / H channels, which only the output and
    the MLP mix. Each head has its own weights; the first implementation's shared them, as if latent channels were alike.
    """

    def __init__(self, width: int, heads: int, *, channel_separated: bool = False) -> None:
        super().__init__()
        self.heads, self.groups = heads, heads if channel_separated else 1
        size = width // self.groups
        # A stack: optimisers of matrices step those of queries, keys and values each by itself.
        self.projections = nn.Parameter(torch.empty(3 * self.groups, size, size))
        nn.init.kaiming_uniform_(self.projections.view(-1, size), a=math.sqrt(5))  # as nn.Linear
        self.output = nn.Linear(width, width, bias=False)
        self.query_norm = nn.RMSNorm(width // heads)
        self.key_norm = nn.RMSNorm(width // heads)

    def forward(self, x_BKW: Tensor, windows: Windows) -> Tensor:
        x_BNKW = windows.split(x_BKW)
        qk_BNKtHD, v_BNKtHD = self._projected(x_BNKW).split([2, 1], dim=-3)
        gain_tHD = torch.stack([self.query_norm.weight, self.key_norm.weight]).unsqueeze(1)
        # In the precision of the gains: under autocast a norm without them would be rounded.
        qk_BNKtHD = F.rms_norm(qk_BNKtHD.to(gain_tHD.dtype), qk_BNKtHD.shape[-1:]) * gain_tHD
        q, k = rotate(qk_BNKtHD, windows.table[..., None, None, :]).flatten(0, 1).unbind(dim=-3)
        v = v_BNKtHD.flatten(0, 1).squeeze(-3)
        visible = windows.visible
        if visible is not None:
            visible = visible.expand(len(x_BKW), -1, -1, -1, -1).flatten(0, 1)
        y_BHKD = F.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=visible
        )
        y_BNKW = y_BHKD.transpose(1, 2).reshape(x_BNKW.shape)
        return self.output(windows.join(y_BNKW))

    def _projected(self, x: Tensor) -> Tensor:
        """[..., W] to queries, keys and values [..., 3, H, D]."""
        if self.groups == 1:
            return F.linear(x, self.projections.flatten(0, 1)).unflatten(-1, (3, self.heads, -1))
        weights = self.projections.unflatten(0, (3, self.heads))
        return torch.einsum("...hd,thed->...the", x.unflatten(-1, (self.heads, -1)), weights)


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

    def __init__(
        self,
        width: int,
        heads: int,
        ratio: int,
        conditioning: int = 0,
        *,
        channel_separated: bool = False,
        shifted: bool = False,
    ) -> None:
        """shifted: where tokens attend within windows, it is those that are shifted by half of one."""
        super().__init__()
        self.shifted = shifted
        affine = conditioning == 0
        self.attention_norm = nn.LayerNorm(width, elementwise_affine=affine)
        self.attention = Attention(width, heads, channel_separated=channel_separated)
        self.feed_forward_norm = nn.LayerNorm(width, elementwise_affine=affine)
        self.feed_forward = FeedForward(width, ratio)
        self.modulation = nn.Linear(conditioning, 6 * width) if conditioning else None
        if self.modulation is not None:
            nn.init.zeros_(self.modulation.weight)
            nn.init.zeros_(self.modulation.bias)
        else:
            nn.init.zeros_(self.attention.output.weight)
            nn.init.zeros_(self.feed_forward.output.weight)

    def forward(
        self, x_BKW: Tensor, position: PositionEmbedding, condition_BC: Tensor | None = None
    ) -> Tensor:
        windows = position.windows(shifted=self.shifted)
        if self.modulation is None:
            normed = self.attention_norm(x_BKW)
            x_BKW = x_BKW + self.attention(normed, windows)
            return x_BKW + self.feed_forward(self.feed_forward_norm(x_BKW))
        if condition_BC is None:
            raise ValueError("a conditioned block needs a condition")
        scale_a, shift_a, gate_a, scale_f, shift_f, gate_f = (
            self.modulation(F.silu(condition_BC)).unsqueeze(1).chunk(6, dim=-1)
        )
        normed = torch.addcmul(shift_a, self.attention_norm(x_BKW), 1 + scale_a)
        x_BKW = torch.addcmul(x_BKW, gate_a, self.attention(normed, windows))
        normed = torch.addcmul(shift_f, self.feed_forward_norm(x_BKW), 1 + scale_f)
        return torch.addcmul(x_BKW, gate_f, self.feed_forward(normed))
