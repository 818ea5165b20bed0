"""How fast a training was, for its last line and record."""

from collections.abc import Mapping

import torch
from torch.utils.flop_counter import FlopCounterMode

from ups.data.batch import Batch
from ups.runtime.device_speed import peak_memory, product_flops
from ups.training.parallel import Replica


class Throughput:
    """Steps of this process and the seconds they took, validations and checkpoints left out."""

    def __init__(self) -> None:
        self.steps, self.seconds, self.waited, self.flops = 0, 0.0, 0.0, 0

    def count_flops(
        self, replica: Replica, batch: Batch, generator: torch.Generator, *, accumulation: int
    ) -> None:
        """Of forward and backward passes, whose gradients are thrown away. A collective call; it uses the generator.

        Beside the training and not in its first step: counting takes some operators apart, and a resumed training
        would have other bits.
        """
        with (
            torch.compiler.set_stance("force_eager"),
            FlopCounterMode(display=False) as counter,
            replica.accumulating(last=True),
        ):
            total, _ = replica.loss(batch.parts(accumulation)[0], generator)
            total.backward()
        replica.average_([])
        for parameter in replica.parameters.values():
            parameter.grad = None
        self.flops = accumulation * counter.get_total_flops()

    def add(self, steps: int, seconds: float, waited: float) -> None:
        """A window of the record."""
        self.steps, self.seconds, self.waited = (
            self.steps + steps,
            self.seconds + seconds,
            self.waited + waited,
        )

    def record(self, device: torch.device, precision: str) -> dict[str, float]:
        """Seconds per step of all steps, GFLOP/s of this rank, their part of a large matrix product's, and memory."""
        achieved = self.flops * self.steps / self.seconds
        return {
            "whole_seconds_per_step": self.seconds / self.steps,
            "whole_data_wait_fraction": self.waited / self.seconds,
            "gigaflop_per_second": achieved / 1e9,
            "of_best_product": achieved / product_flops(device, precision),
            "peak_memory_gigabytes": peak_memory(device) / 1e9,
        }


def throughput_line(record: Mapping[str, float]) -> str:
    """A record in words."""
    return (
        f"{record['whole_seconds_per_step']:.3g} s/step, data wait {record['whole_data_wait_fraction']:.1%}, "
        f"{record['gigaflop_per_second']:.3g} GFLOP/s ({record['of_best_product']:.0%} of a large matrix product's), "
        f"memory {record['peak_memory_gigabytes']:.2g} GB"
    )
