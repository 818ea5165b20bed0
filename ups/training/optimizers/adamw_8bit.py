"""AdamW with moments of eight bits, scaled by blocks of 256 (Dettmers et al. 2021, arXiv:2110.02861), of torchao."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torchao.optim import AdamW8bit

from ups.training.groups import decayed_and_others
from ups.training.placement import Placement


def optimizer(
    parameters: Mapping[str, nn.Parameter],
    placement: Placement,
    *,
    learning_rate: float,
    betas: tuple[float, float],
    weight_decay: float,
) -> torch.optim.Optimizer:
    """See `ups.training.optimizers`."""
    del placement  # it changes every number by itself
    groups = decayed_and_others(parameters.values(), weight_decay)
    return _Optimizer(groups, lr=learning_rate, betas=betas)


class _Optimizer(AdamW8bit):
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """On a CPU without torchao's compilation, which takes half a minute and saves nothing there."""
        on_cpu = not self.param_groups[0]["params"][0].is_cuda
        with torch.compiler.set_stance("force_eager" if on_cpu else "default"):
            return super().step(closure)
