"""Training in float16, whose smallest numbers are too large for many gradients: the loss is multiplied by a large number before its
backward pass, and gradients are divided by it (Micikevicius et al. 2018, arXiv:1710.03740, section 3.2).

Where the scaled backward pass overflows, the step is left out and the scale is halved; after many steps that did not, it is
doubled. All of it is the device's work, so that a step can be captured, and in proportion to a gradient that is the same on all
ranks, so that they decide alike.

A step is left out by putting back what it changed, from copies of weights and of what the optimiser remembers. So no optimiser
need know of it. Rejected: torch's own protocol (`found_inf`), which only its fused optimisers know and which Muon, SOAP and eight-bit
AdamW would each have to be taught; gradients of zero with a learning rate of zero, by which averages of gradients still decay; to have the
host decide, as torch's GradScaler does for other optimisers, which no graph can hold.
"""

import torch
from torch import Tensor

from ups.training.slots import inner_tensors

_FIRST, _SMALLEST, _LARGEST = 2.0**16, 1.0, 2.0**24
"""All powers of two: scaling by them rounds nothing. A gradient that overflows unscaled is the training's own failure."""
_GROW_AFTER = 2000  # finite steps, as in torch


class LossScale:
    """The number that losses are multiplied by.

    Attributes:
        state: what a checkpoint holds, on the device: the scale, and how many steps were finite since it changed.
        begun: False where the newest step overflowed before the optimiser had any state.
    """

    def __init__(self, device: torch.device) -> None:
        self.begun = True
        self.state = {
            "scale": torch.full((), _FIRST, device=device),
            "finite_steps": torch.zeros((), dtype=torch.int64, device=device),
        }

    def scaled(self, loss: Tensor) -> Tensor:
        """A loss whose gradients are to be unscaled."""
        return loss * self.state["scale"]

    def unscale_(self, gradients: list[Tensor]) -> None:
        """In place."""
        torch._foreach_mul_(gradients, 1 / self.state["scale"])  # pyright: ignore[reportPrivateImportUsage]

    def overflowed(self, gradient_norm: Tensor) -> Tensor:
        """Whether a gradient is not finite and a smaller scale may help."""
        return ~gradient_norm.isfinite() & (self.state["scale"] > _SMALLEST)

    @torch.no_grad()
    def step(self, optimizer: torch.optim.Optimizer, finite: Tensor) -> None:
        """A step of an optimiser, that has changed nothing if its gradients are not finite; and the next step's scale.

        finite: [] bool.
        """
        given = [
            part for group in optimizer.param_groups for part in group["params"] if part.grad is not None
        ]
        if all(optimizer.state.get(part) for part in given):
            slots = (value for part in given for value in optimizer.state[part].values())
            changed = [inner for value in (*given, *slots) for inner in inner_tensors(value).values()]
            before = [value.clone() for value in changed]
            optimizer.step()
            for value, kept in zip(changed, before, strict=True):
                # A number of steps may be on the host, which then waits; such optimisers are never captured.
                torch.where(finite.to(value.device), value, kept, out=value)
            self.begun = True
        else:  # a first step makes what is remembered, and is never captured: there the host may ask
            self.begun = bool(finite.item())
            if self.begun:
                optimizer.step()
        scale, steps = self.state["scale"], self.state["finite_steps"]
        steps.copy_(torch.where(finite, steps + 1, 0))
        grows = steps == _GROW_AFTER
        factor = torch.where(finite, torch.where(grows, 2.0, 1.0), 0.5)
        scale.copy_((scale * factor).clamp(_SMALLEST, _LARGEST))
        steps.masked_fill_(grows, 0)
