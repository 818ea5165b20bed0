"""Layers that are computed in float32, whatever the networks around them are computed in.

Under autocast a linear map gives what it computes in, and a sum what the wider of its parts has. So where the maps in and out of
a network are float32, all that its blocks add up is too; of a residual stream in bfloat16, which keeps eight bits, each block would
round away what is below a hundredth. What is computed in fewer bits then are products within blocks.

TensorFloat-32 goes on, where it was asked for: it concerns products alone, whose results are float32, and is a switch of the
whole device, which a compiled network could not turn.
"""

import torch
from torch import Tensor, nn


class Float32Linear(nn.Linear):
    """A linear map in and out of a network, or from one of its grids to the next, [..., inputs] to [..., outputs]."""

    def forward(self, input: Tensor) -> Tensor:
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(input.to(self.weight.dtype))
