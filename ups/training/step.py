"""Everything that changes a weight, in order. The only caller of `optimizer.step()`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ups.data.batch import Batch
from ups.errors import NotFiniteError
from ups.runtime.ranks import Ranks
from ups.training.ema import ExponentialMovingAverage
from ups.training.objectives import Objective


class BatchSource(Protocol):
    """Batches by step number; what else a source remembers changes only at a validation."""

    def batch(self, step: int) -> Batch: ...

    def reweigh(self, step: int, errors: Mapping[str, float]) -> None:
        """Take note of validation errors per problem, equal on all ranks; batches from `step` on may follow."""
        ...

    def state(self) -> dict[str, Any]:
        """For a checkpoint, JSON."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None: ...


@dataclass
class TrainingState:
    """What a step changes and a checkpoint holds; the next step's number is its position.

    Attributes:
        latest: loss and terms of each problem's newest batch since the last record, which a resumed run writes.
        layouts: numbers of ranks and threads, each with the first step that was made with it.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    ema: ExponentialMovingAverage
    source: BatchSource
    step: int = 0
    latest: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    layouts: list[dict[str, int]] = field(default_factory=list)


def training_step(
    state: TrainingState,
    objective: Objective,
    batch: Batch,
    generator: torch.Generator,
    ranks: Ranks,
    *,
    learning_rate: float,
    gradient_clip: float,
    autocast: bool,
) -> dict[str, Tensor]:
    """One optimiser step; returns the detached loss, its terms and the gradient norm, averaged over ranks.

    Raises:
        NotFiniteError: loss or gradient is NaN or infinite; the weights are left as they were.
    """
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate * group["rate"]
    with torch.autocast(ranks.device.type, dtype=torch.bfloat16, enabled=autocast):
        loss = objective(state.model, batch, generator)
    loss.total.backward()
    parameters = [p for p in state.model.parameters() if p.requires_grad]
    gradients = [p.grad for p in parameters if p.grad is not None]
    logged = {"loss": loss.total.detach().float().clone()}
    logged |= {name: term.detach().float().clone() for name, term in loss.terms.items()}
    ranks.average_([*gradients, *logged.values()])
    norm = nn.utils.get_total_norm(gradients)
    if not torch.isfinite(norm + logged["loss"]):
        raise NotFiniteError(
            f"step {state.step}: loss {logged['loss'].item()}, gradient norm {norm.item()}",
            fix="lower the learning rate or lengthen the warm-up of this stage; a repetition gives the same",
        )
    nn.utils.clip_grads_with_norm_(parameters, gradient_clip, norm)
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    state.ema.update(state.model, state.step)
    state.step += 1
    return logged | {"gradient_norm": norm}
