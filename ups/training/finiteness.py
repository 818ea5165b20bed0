"""Whether a training is finite: known to the device at every step, asked for by the host when it reads other values anyway.

A step that is not finite changes the weights all the same: the host finds out before anything is kept, and stops the training. Only in
float16, where gradients may overflow and the training goes on, is such a step left out (`ups.training.loss_scale`).
"""

import math

import torch
from torch import Tensor

from ups.errors import NotFiniteError
from ups.runtime.ranks import Ranks


class Finiteness:
    """Which was the first step whose loss or gradient norm is NaN or infinite, since the last `check`."""

    def __init__(self, ranks: Ranks) -> None:
        self._ranks, device = ranks, ranks.device
        self._all = torch.ones((), dtype=torch.bool, device=device)
        # All since the last check, and how many of them came before the first that is not finite.
        self._steps = torch.zeros(2, dtype=torch.int64, device=device)
        self._values = torch.zeros(3, device=device)

    def note(self, loss: Tensor, gradient_norm: Tensor, own_loss: Tensor, overflowed: Tensor | None) -> None:
        """Of one step; without waiting for it.

        loss, gradient_norm: of all ranks, and so the same on all.
        own_loss: of this rank's part of the batch.
        overflowed: [] bool, whether the gradient may be what it is; None: no.
        """
        values = torch.stack([loss, gradient_norm, own_loss]).float()
        self._values.copy_(torch.where(self._all, values, self._values))
        finite = values[:2].isfinite()
        if overflowed is not None:
            finite[1].logical_or_(overflowed)
        self._all.logical_and_(finite.all())
        self._steps[0].add_(1)
        self._steps[1].add_(self._all)

    def check(self, step: int) -> None:
        """Of all steps before `step`, the next one; a collective call where one was not finite, which all ranks know.

        Raises:
            NotFiniteError: one was not finite.
        """
        if not self._all.item():
            loss, gradient_norm, own_loss = self._values.tolist()
            steps, finite = self._steps.tolist()
            raise NotFiniteError(
                f"step {step - steps + finite}: loss {loss}, gradient norm {gradient_norm}{self._where(own_loss)}",
                fix="lower the learning rate or lengthen the warm-up of this stage; a repetition gives the same",
            )
        self._steps.zero_()

    def _where(self, own_loss: float) -> str:
        """On which ranks, as far as losses tell; nothing of one rank alone."""
        ranks = self._ranks
        if ranks.world == 1:
            return ""
        broken = torch.zeros(ranks.world)
        broken[ranks.rank] = float(not math.isfinite(own_loss))
        found = ranks.sum(broken).nonzero().flatten().tolist()
        where = f"of rank {', '.join(map(str, found))}" if found else "of no rank"
        return f"; the loss {where} of {ranks.world} is not finite by itself"
