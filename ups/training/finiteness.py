"""Whether a training is finite: known to the device at every step, asked for by the host when it reads other values anyway."""

import torch
from torch import Tensor

from ups.errors import NotFiniteError


class Finiteness:
    """Which was the first step whose loss or gradient norm is NaN or infinite, since the last `check`."""

    def __init__(self, device: torch.device) -> None:
        self._all = torch.ones((), dtype=torch.bool, device=device)
        # All since the last check, and how many of them came before the first that is not finite.
        self._steps = torch.zeros(2, dtype=torch.int64, device=device)
        self._values = torch.zeros(2, device=device)

    def note(self, loss: Tensor, gradient_norm: Tensor) -> None:
        """Of one step; without waiting for it."""
        values = torch.stack([loss, gradient_norm]).float()
        self._values.copy_(torch.where(self._all, values, self._values))
        self._all.logical_and_(values.isfinite().all())
        self._steps[0].add_(1)
        self._steps[1].add_(self._all)

    def check(self, step: int) -> None:
        """Of all steps before `step`, the next one.

        Raises:
            NotFiniteError: one was not finite.
        """
        if not self._all.item():
            loss, gradient_norm = self._values.tolist()
            steps, finite = self._steps.tolist()
            raise NotFiniteError(
                f"step {step - steps + finite}: loss {loss}, gradient norm {gradient_norm}",
                fix="lower the learning rate or lengthen the warm-up of this stage; a repetition gives the same",
            )
        self._steps.zero_()
