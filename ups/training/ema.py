"""Exponential moving average of weights, with warm-up.

Without warm-up an average that starts at the initial weights still holds decay^steps of them at the end:
0.35 to 0.66 in the first implementation's runs, whose evaluations then scored mostly random weights.
"""

from collections.abc import Mapping

import torch
from torch import Tensor


class ExponentialMovingAverage:
    """Average of parameters over the steps of a training, by name; they themselves are never touched."""

    def __init__(self, parameters: Mapping[str, Tensor], decay: float) -> None:
        self.decay = decay
        self._parameters = {name: parameter.detach() for name, parameter in parameters.items()}
        self.weights: dict[str, Tensor] = {name: value.clone() for name, value in self._parameters.items()}
        first = next(iter(self.weights.values()))
        self._share = torch.ones((), dtype=torch.float32, device=first.device)

    def prepare(self, step: int) -> None:
        """Set the decay of step `step` (from 0), min(d, (1 + s) / (10 + s)).

        The ramp is that of TensorFlow's ExponentialMovingAverage(num_updates); the initial weights are
        forgotten after a few dozen steps.
        """
        self._share.fill_(1 - min(self.decay, (1 + step) / (10 + step)))

    @torch.no_grad()
    def update(self, moves: Tensor | None = None) -> None:
        """Move towards the parameters as they are now; the decay is read on the device.

        moves: [] bool, whether the parameters did; None: they did.
        """
        averages = list(self.weights.values())
        shares = [self._share if moves is None else self._share * moves] * len(averages)
        torch._foreach_lerp_(averages, list(self._parameters.values()), shares)  # pyright: ignore[reportPrivateImportUsage]
