"""What a device can do, to set beside what a training does on it."""

import resource
import time

import torch

from ups.runtime.precision import tensor_float_32

_REPEATS = 5


def product_flops(device: torch.device, precision: str) -> float:
    """FLOP/s of one large matrix product, measured: no network of small matrices reaches it."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    # CPUs without units for bfloat16 emulate it, twenty times slower.
    size = 8192 if device.type == "cuda" else 256 if precision == "bf16" else 1024
    left, right = torch.randn(2, size, size, device=device).to(dtype)
    with tensor_float_32(allowed=precision == "tf32"):
        taken = [_seconds(left, right) for _ in range(_REPEATS)]
    return 2 * size**3 / min(taken)


def _seconds(left: torch.Tensor, right: torch.Tensor) -> float:
    started = time.perf_counter()
    product = left @ right
    product.sum().item()  # a GPU is waited for
    return time.perf_counter() - started


def reset_peak_memory(device: torch.device) -> None:
    """Forget what a GPU's peak was; that of a process on a CPU cannot be forgotten."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int:
    """Bytes that this process has had at most: of a GPU's memory, or of the machine's, libraries included."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
