"""In how many bits is computed, said in one place.

Networks may compute in fewer than float32. Weights are float32, and so is the forward pass of finished codecs, of the exact parts of
a step and of losses: errors of a forecast are thousandths, and TensorFloat-32 keeps ten bits. In a backward pass they are
noise of the gradient.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ups.errors import PreflightError

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""Formats that the forward pass of networks is in; of other precisions it is in float32."""


def require_tensor_float_32(device: torch.device) -> None:
    """Check that a GPU has TensorFloat-32: from compute capability 8.0 on (Ampere); others would compute in float32, without a word.

    Raises:
        PreflightError: it has not.
    """
    if torch.cuda.get_device_capability(device) < (8, 0):
        raise PreflightError(
            f"tf32 is not to be had on the GPU of execution.device: {device.type}, {torch.cuda.get_device_name(device)}",
            where="execution.precision",
            fix="write execution.precision: fp32, or take a GPU of compute capability 8.0 or more",
        )


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
