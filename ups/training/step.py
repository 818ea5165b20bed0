"""Everything that changes a weight, in order; in float16 `LossScale.step` calls `optimizer.step()` for it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from ups.data.batch import Batch
from ups.errors import NotFiniteError
from ups.training.best import Best
from ups.training.ema import ExponentialMovingAverage
from ups.training.finiteness import Finiteness
from ups.training.loss_scale import LossScale
from ups.training.parallel import Replica

PROFILED = "training step"
"""Name of a step in a profile."""


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
        layouts: numbers of ranks and threads and how ranks share the work, each with the first step that was made with it.
        loss_scale: None where losses need none.
        finiteness: of the steps of this process.
        clipped: how many of them had their gradient clipped.
    """

    replica: Replica
    optimizer: torch.optim.Optimizer
    ema: ExponentialMovingAverage
    source: BatchSource
    best: Best = field(default_factory=lambda: Best(keeps=False))
    step: int = 0
    latest: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    layouts: list[dict[str, int | str]] = field(default_factory=list)
    loss_scale: LossScale | None = None
    finiteness: Finiteness = field(init=False)
    clipped: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.finiteness = Finiteness(self.replica.ranks)
        self.clipped = torch.zeros((), dtype=torch.int64, device=self.replica.ranks.device)

    @property
    def published(self) -> dict[str, Tensor]:
        """Weights that the training is for, this rank's parts: averages, of the last step or of the best validation.

        Raises:
            NotFiniteError: no validation is finite, and so none is the best.
        """
        if self.best.keeps and not self.best.weights:
            raise NotFiniteError("no validation error is finite", fix="lower the learning rate of this stage")
        return self.best.weights if self.best.keeps else self.ema.weights


def training_step(
    state: TrainingState, batch: Batch, update: Callable[[Batch], dict[str, Tensor]], *, learning_rate: float
) -> dict[str, Tensor]:
    """One optimiser step; returns the detached loss, its terms and the gradient norm, averaged over ranks.

    The host sets the learning rate, the decay of the average and what the objective has of the step's number, launches the work and does
    not wait for it. Whether all was finite, `TrainingState.finiteness.check` says.

    update: an `Update`, as it is or captured.
    """
    for group in state.optimizer.param_groups:
        group["lr"].fill_(learning_rate * group["rate"])
    state.ema.prepare(state.step)
    state.replica.objective.prepare(batch.step)
    with record_function(PROFILED):
        logged = update(batch)
    state.step += 1
    return logged


@dataclass(frozen=True)
class Update:
    """The part of a step that is the device's work: nothing in it is read by the host.

    Attributes:
        generator: of the noise; seeded by whoever asks for the step.
        gradient_clip: global norm.
        autocast: format that the forward pass computes in where that is enough; None: float32.
        accumulation: equal parts of a batch that are computed one after the other.
    """

    state: TrainingState
    generator: torch.Generator
    gradient_clip: float
    autocast: torch.dtype | None = None
    accumulation: int = 1

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        state, replica, scale = self.state, self.state.replica, self.state.loss_scale
        logged: dict[str, Tensor] = {}
        parts = batch.parts(self.accumulation)
        for part in parts:
            with replica.accumulating(last=part is parts[-1]):
                total, terms = self.loss(part)
                share = total / self.accumulation
                (share if scale is None else scale.scaled(share)).backward()
            for name, term in ({"loss": total} | terms).items():
                value = term.detach().float() / self.accumulation
                logged[name] = logged[name] + value if name in logged else value
        own_loss = logged["loss"].clone()
        gradients = replica.average_(list(logged.values()))
        if scale is not None:
            scale.unscale_(gradients)
        norm = replica.norm(gradients)
        state.finiteness.note(logged["loss"], norm, own_loss, scale and scale.overflowed(norm))
        state.clipped.add_((norm > self.gradient_clip) & norm.isfinite())
        nn.utils.clip_grads_with_norm_(replica.parameters.values(), self.gradient_clip, norm)
        moves = None
        if scale is None:
            state.optimizer.step()
        else:
            logged["loss_scale"] = scale.state["scale"].clone()
            moves = norm.isfinite()
            scale.step(state.optimizer, moves)
        state.optimizer.zero_grad(set_to_none=True)
        state.ema.update(moves)
        return logged | {"gradient_norm": norm}

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Total and terms, in the precision of the step."""
        replica = self.state.replica
        with torch.autocast(
            replica.ranks.device.type, dtype=self.autocast, enabled=self.autocast is not None
        ):
            return replica.loss(batch, self.generator)
