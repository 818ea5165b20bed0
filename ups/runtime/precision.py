"""In how many bits is computed, said in one place.

Networks may compute in fewer than float32. Weights are float32, and so is the forward pass of finished codecs, of the exact parts of
a step and of losses: errors of a forecast are thousandths, and TensorFloat-32 keeps ten bits. In a backward pass they are
noise of the gradient.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""Formats that the forward pass of networks is in; of other precisions it is in float32."""


@contextmanager
def tensor_float_32(*, allowed: bool) -> Iterator[None]:
    """Matrix products and convolutions of a GPU in TensorFloat-32, or in float32. Both are said: torch allows it by default
    in convolutions and forbids it in matrix products."""
    products, convolutions = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = products, convolutions


@contextmanager
def full_float32(device: torch.device) -> Iterator[None]:
    """The forward pass of what must be exact, whatever the networks around it compute in."""
    with torch.autocast(device.type, enabled=False), tensor_float_32(allowed=False):
        yield
