"""What a device can do, to set beside what a training does on it."""

import resource
import time
from collections.abc import Callable

import torch

from ups.runtime.precision import AUTOCAST, tensor_float_32

_REPEATS = 5
_COPIED_BYTES = 256 << 20  # no cache holds that
_LAUNCHES = 1000


def product_flops(device: torch.device, precision: str) -> float:
    """FLOP/s of one large matrix product, measured: no network of small matrices reaches it."""
    dtype = AUTOCAST.get(precision, torch.float32)
    # CPUs without units for sixteen bits emulate them, twenty times slower.
    size = 8192 if device.type == "cuda" else 256 if precision in AUTOCAST else 1024
    left, right = torch.randn(2, size, size, device=device).to(dtype)
    with tensor_float_32(allowed=precision == "tf32"):
        taken = _seconds(lambda: left @ right, device)
    return 2 * size**3 / taken


def copy_bandwidth(device: torch.device) -> float:
    """Bytes per second, read and written, of one large copy within the device's memory, measured."""
    source = torch.zeros(_COPIED_BYTES, dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    return 2 * _COPIED_BYTES / _seconds(lambda: target.copy_(source), device)


def launch_seconds(device: torch.device, *, captured: bool = False) -> float:
    """What an operator costs that computes nothing: one of a thousand in a row, measured. On a CPU a view, on a GPU a kernel for one
    number.

    captured: as part of a CUDA graph; the device's part of it, without the host's.
    """
    number = torch.zeros(1, device=device)

    def launch() -> None:
        for _ in range(_LAUNCHES):
            if device.type == "cuda":
                number.add_(1)
            else:
                number.view(1)

    if not captured:
        return _seconds(launch, device) / _LAUNCHES
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        launch()
    return _seconds(graph.replay, device) / _LAUNCHES


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """The shortest of several times, the first of which warms up."""
    taken = []
    for _ in range(_REPEATS):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(time.perf_counter() - started)
    return min(taken)


def reset_peak_memory(device: torch.device) -> None:
    """Forget what a GPU's peak was; that of a process on a CPU cannot be forgotten."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int:
    """Bytes that this process has had at most: of a GPU's memory, or of the machine's, libraries included."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
