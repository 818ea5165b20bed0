"""How fast a training step could be at best on a device, by what the device was measured to do.

A step takes at least as long as the longest of: its matrix products, at the speed of one large product; what it must move through memory,
at the speed of a large copy; its kernels, at what an empty one costs to launch. Two of them overlap at best, so they are not added up.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch

from ups.config.schema import Execution
from ups.runtime.device_speed import copy_bandwidth, launch_seconds, product_flops


@dataclass(frozen=True)
class Floor:
    """Seconds that each of the three takes at least.

    Attributes:
        launches: None where the network is compiled, for how many kernels are left of it is not known.
    """

    products: float
    memory: float
    launches: float | None

    @property
    def binding(self) -> tuple[str, float]:
        """The longest."""
        all_three = {
            "matrix products": self.products,
            "memory": self.memory,
            "launches": self.launches or 0.0,
        }
        return max(all_three.items(), key=lambda item: item[1])


def floor_of(flops: float, moved: int, kernels: float, execution: Execution) -> Floor:
    """Of a step, on the device of an execution, measured now.

    Args:
        flops: of its matrix products.
        moved: bytes, see `bytes_moved`.
        kernels: that it launches.
    """
    device = torch.device(execution.device)
    launches = None
    if execution.compile is False:
        launches = kernels * launch_seconds(device, captured=execution.cuda_graphs is True)
    return Floor(
        products=flops / product_flops(device, execution.precision),
        memory=moved / copy_bandwidth(device),
        launches=launches,
    )


def bytes_moved(checkpoint: Path) -> int:
    """That a step must move, whatever its batch is: it reads and writes weights, averages and what the optimiser remembers, and
    writes and reads gradients. Activations are not counted, which may stay in a cache.

    checkpoint: of the training, which holds all these but the gradients.
    """
    with checkpoint.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    sizes = {"ema": 0, "optimizer": 0}
    for name, entry in header.items():
        part = name.partition("/")[0]
        if part in sizes:
            start, end = entry["data_offsets"]
            sizes[part] += end - start
    # An average is as large as its weight, and as the weight's gradient.
    return 2 * (3 * sizes["ema"] + sizes["optimizer"])
