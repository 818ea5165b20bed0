"""Ranks: the process group, the device and the stop signal of one stage process."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from types import FrameType

import torch
import torch.distributed as dist
from torch import Tensor

from ups.errors import PreflightError
from ups.runtime.precision import tensor_float_32


@dataclass
class Ranks:
    """This process among its peers.

    `stop_requested` is set by SIGTERM; the loop asks `should_stop` at a step boundary, where all ranks
    agree, so that they checkpoint the same step.
    """

    rank: int
    world: int
    device: torch.device
    stop_requested: bool = False

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def average_(self, tensors: list[Tensor]) -> None:
        """Replace each tensor by its mean over ranks, in place.

        One flat buffer in a fixed order: the reduction has the same layout at every step, so a resumed
        run adds in the same order as an uninterrupted one for any number of ranks. DistributedDataParallel
        rebuilds its buckets after the first backward pass and then does not.
        """
        if self.world == 1 or not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        flat /= self.world
        offset = 0
        for tensor in tensors:
            tensor.copy_(flat[offset : offset + tensor.numel()].view_as(tensor))
            offset += tensor.numel()

    def sum(self, values: Tensor) -> Tensor:
        """Sum over ranks, the same on every rank; for a few numbers, on the CPU."""
        if self.world == 1:
            return values
        total = values.cpu().clone()
        dist.all_reduce(total)
        return total

    def should_stop(self) -> bool:
        """Whether any rank was asked to stop; a collective call."""
        if self.world == 1:
            return self.stop_requested
        flag = torch.tensor([float(self.stop_requested)])  # on the CPU: a GPU need not be waited for
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return bool(flag.item())

    def barrier(self) -> None:
        if self.world > 1:
            dist.barrier()


def make_compiler_deterministic() -> None:
    """Let the compiler choose its kernels by nothing that it measures, where algorithms are deterministic. Before anything is compiled."""
    if torch.are_deterministic_algorithms_enabled():
        torch.use_deterministic_algorithms(
            True, warn_only=torch.is_deterministic_algorithms_warn_only_enabled()
        )


@contextmanager
def join_ranks(device: str, threads: int) -> Iterator[Ranks]:
    """Join the ranks that torchrun started; a process without torchrun is a world of one. It computes in float32.

    Args:
        device: "cpu" or "cuda"; never "auto", which the pipeline resolves before digests are taken.
        threads: intra-operator threads, part of what makes a run repeatable.

    Raises:
        PreflightError: CUDA is asked for and this torch has no CUDA device.
    """
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    torch.set_num_threads(threads)
    # `use_deterministic_algorithms` imports the compiler to tell it too, for a second: see `make_compiler_deterministic`.
    torch.set_deterministic_debug_mode("warn" if device == "cuda" else "error")
    if device == "cuda":  # torchao compiles the step of adamw_8bit
        make_compiler_deterministic()
    # By default every new tensor is filled with NaN, to show who reads what nobody wrote: 4 % of the demo's training step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]
    if device == "cuda":
        if not torch.cuda.is_available():
            raise PreflightError(
                "torch sees no CUDA device", where="execution.device", fix="set execution.device: cpu"
            )
        index = int(os.environ.get("LOCAL_RANK", "0"))
        torch.cuda.set_device(index)
        target = torch.device("cuda", index)
    else:
        target = torch.device("cpu")
    if world > 1:
        backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=timedelta(minutes=10))
    ranks = Ranks(rank, world, target)

    def request_stop(_signal: int, _frame: FrameType | None) -> None:
        ranks.stop_requested = True

    previous = signal.signal(signal.SIGTERM, request_stop)
    try:
        with tensor_float_32(allowed=False):
            yield ranks
    finally:
        signal.signal(signal.SIGTERM, previous)
        if world > 1:
            dist.destroy_process_group()


def device_name(device: torch.device) -> str:
    """For records: the kind of device, with the GPU's name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
