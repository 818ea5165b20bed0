"""Exponential moving average of weights, with warm-up.

Without warm-up an average that starts at the initial weights still holds decay^steps of them at the end:
0.35 to 0.66 in the first implementation's runs, whose evaluations then scored mostly random weights.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class ExponentialMovingAverage:
    """Average of the parameters of a model; the model itself is never touched."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights: dict[str, Tensor] = {
            name: parameter.detach().clone() for name, parameter in model.named_parameters()
        }
        first = next(iter(self.weights.values()))
        self._share = torch.ones((), dtype=torch.float32, device=first.device)

    def prepare(self, step: int) -> None:
        """Set the decay of step `step` (from 0), min(d, (1 + s) / (10 + s)).

        The ramp is that of TensorFlow's ExponentialMovingAverage(num_updates); the initial weights are
        forgotten after a few dozen steps.
        """
        self._share.fill_(1 - min(self.decay, (1 + step) / (10 + step)))

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move towards the model's weights; the decay is read on the device."""
        averages = list(self.weights.values())
        parameters = [parameter.detach() for parameter in model.parameters()]
        torch._foreach_lerp_(averages, parameters, [self._share] * len(averages))  # pyright: ignore[reportPrivateImportUsage]

    @contextmanager
    def applied_to(self, model: nn.Module) -> Iterator[None]:
        """Give the model the averaged weights for the duration of a block, then its own back."""
        own = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        self._assign(model, self.weights)
        try:
            yield
        finally:
            self._assign(model, own)

    @staticmethod
    @torch.no_grad()
    def _assign(model: nn.Module, weights: dict[str, Tensor]) -> None:
        for name, parameter in model.named_parameters():
            parameter.copy_(weights[name])
