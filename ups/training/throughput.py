"""How a training went as a whole, for its last line and record: how fast, and how often its gradient was clipped."""

from collections.abc import Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from ups.data.batch import Batch
from ups.runtime.device_speed import peak_memory, product_flops, reset_peak_memory
from ups.training.step import Update


class _Counting(TorchDispatchMode):
    """Counts as torch's FlopCounterMode does, which also follows modules, and fails on those that are called without gradients
    on something that has them."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func.overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **(kwargs or {}), out_val=result)
        return result


class Throughput:
    """Steps of this process and the seconds they took; validations and checkpoints take none here.

    Attributes:
        flops: of a forward and a backward pass of this rank's first batch: of the matrix products and convolutions. None: not counted yet.
    """

    def __init__(self) -> None:
        self.steps, self.seconds, self.waited = 0, 0.0, 0.0
        self.flops: int | None = None

    def count_flops(self, update: Update, batch: Batch) -> None:
        """Of one sample, times their number; its gradients are thrown away. A collective call; it uses the generator.

        Beside the training and not in its first step, which would be taken uncompiled: a resumed training would have other bits.
        """
        replica = update.state.replica
        with (
            torch.compiler.set_stance("force_eager"),
            _Counting() as counting,
            replica.accumulating(last=True),
        ):
            total, _ = update.loss(batch.each(lambda values: values[:1]))
            total.backward()
        replica.average_([])
        for parameter in replica.parameters.values():
            parameter.grad = None
        self.flops = len(batch) * counting.flops
        reset_peak_memory(replica.ranks.device)

    def add(self, steps: int, seconds: float, waited: float) -> None:
        """A window of the record."""
        self.steps, self.seconds, self.waited = (
            self.steps + steps,
            self.seconds + seconds,
            self.waited + waited,
        )

    def record(self, device: torch.device, precision: str, clipped: int) -> dict[str, float]:
        """Seconds per step of all steps, GFLOP/s of this rank, their part of a large matrix product's, memory, and the part of the
        steps whose gradient was clipped.
        """
        memory = peak_memory(device)  # before the product has any
        achieved = (self.flops or 0) * self.steps / self.seconds
        return {
            "whole_seconds_per_step": self.seconds / self.steps,
            "whole_data_wait_fraction": self.waited / self.seconds,
            "gigaflop_per_second": achieved / 1e9,
            "of_best_product": achieved / product_flops(device, precision),
            "peak_memory_gigabytes": memory / 1e9,
            "clipped_fraction": clipped / self.steps,
        }


def throughput_line(record: Mapping[str, float]) -> str:
    """A record in words."""
    graphs = ""
    if "captured_graphs" in record:
        graphs = f", {record['captured_graphs']} CUDA graphs captured, {record['discarded_graphs']} of them discarded"
    return (
        f"{record['whole_seconds_per_step']:.3g} s/step, data wait {record['whole_data_wait_fraction']:.1%}, "
        f"{record['gigaflop_per_second']:.3g} GFLOP/s ({record['of_best_product']:.0%} of a large matrix product's), "
        f"memory {record['peak_memory_gigabytes']:.2g} GB, {record['clipped_fraction']:.0%} of steps clipped{graphs}"
    )
