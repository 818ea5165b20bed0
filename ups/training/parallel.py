"""A model and its objective as several ranks train them: what a rank holds, and how gradients become their mean over ranks.

all_reduce: every rank holds all weights, and gradients are averaged in one buffer when the backward pass is done.
ddp: the same in buckets, while the backward pass goes on (Li et al. 2020, arXiv:2006.15704).
fsdp: every rank holds its rows of every weight, with their gradients, averages and what the optimiser remembers. A block's weights are
    whole only while it computes (Zhao et al. 2023, arXiv:2304.11277; torch's `fully_shard`).
"""

import copy
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from ups.config.schema import Execution
from ups.data.batch import Batch
from ups.runtime.ranks import Ranks
from ups.training.objectives import Objective
from ups.training.placement import Placement
from ups.training.prepare import blocks_of, prepare

log = logging.getLogger(__name__)


def parallelise(model: nn.Module, objective: Objective, execution: Execution, ranks: Ranks) -> "Replica":
    """Make a model ready for its training, as a configuration asks for it.

    model: equal on all ranks. Its modules keep the names that checkpoints and optimisers know.
    """
    kinds = {"all_reduce": Replica, "ddp": OverlappedReplica, "fsdp": Shard}
    return kinds[execution.data_parallel](model, objective, execution, ranks)


class _Step(nn.Module):
    """What is differentiated as one module: DDP and FSDP want one call for each backward pass, whatever rollout is in it."""

    def __init__(self, model: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.model, self._objective = model, objective

    def forward(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        loss = self._objective(self.model, batch, generator)
        return loss.total, loss.terms


class Replica(Placement):
    """A rank that holds the whole model, and what the steps of a training ask of a rank, however much it holds.

    Attributes:
        model: that is validated and published, with names as everywhere. Here it is the one that is trained; that of a
            `Shard` has weights only within `averaged`.
        parameters: by name, the rows of each parameter that are here, [rows here, ...]: what the optimiser changes.
    """

    def __init__(self, model: nn.Module, objective: Objective, execution: Execution, ranks: Ranks) -> None:
        super().__init__(ranks)
        self.model, self.objective = model, objective
        prepare(model, execution)
        self._step: nn.Module = _Step(model, objective)
        self.parameters = dict(model.named_parameters())

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Total and terms of this rank's part of a batch."""
        return self._step(batch, generator)

    def accumulating(self, *, last: bool) -> AbstractContextManager[Any]:
        """Around the forward and backward pass of a part of a batch: only the last one's gradients are sent."""
        del last
        return nullcontext()

    def average_(self, logged: list[Tensor]) -> list[Tensor]:
        """The gradients, averaged over ranks; the logged numbers too, in place."""
        gradients = self._gradients()
        # In the same buffer: one message less.
        self.ranks.average_([*gradients, *logged])
        return gradients

    def norm(self, gradients: list[Tensor]) -> Tensor:
        """Of all parameters' gradients, whoever holds them."""
        return nn.utils.get_total_norm(gradients)

    def whole_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """The model's state with its names, each made whole when it is asked for; a collective call."""
        for name, value in self.model.state_dict().items():
            part = self.parameters.get(name)
            yield name, value if part is None else self.whole(part, part.detach())

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Of whole tensors."""
        self.model.load_state_dict(dict(tensors))

    @contextmanager
    def averaged(self, weights: Mapping[str, Tensor]) -> Iterator[None]:
        """Give the model other weights for the duration of a block, then its own back; a collective call.

        weights: by name, this rank's parts.
        """
        own = {name: parameter.detach().clone() for name, parameter in self.model.named_parameters()}
        self._assign({name: self.whole(part, weights[name]) for name, part in self.parameters.items()})
        try:
            yield
        finally:
            self._assign(own)

    def _gradients(self) -> list[Tensor]:
        return [p.grad for p in self.parameters.values() if p.requires_grad and p.grad is not None]

    @torch.no_grad()
    def _assign(self, weights: Mapping[str, Tensor]) -> None:
        for name, parameter in self.model.named_parameters():
            parameter.copy_(weights[name])


class OverlappedReplica(Replica):
    """A rank that holds the whole model, and sends gradients while it computes more of them.

    The compiler makes a graph for each bucket of what is compiled within DDP (`torch._dynamo.config.optimize_ddp`), whose
    gradients are sent when it is done; with one for the whole network all would be there at once, at its end.
    """

    def __init__(self, model: nn.Module, objective: Objective, execution: Execution, ranks: Ranks) -> None:
        super().__init__(model, objective, execution, ranks)
        # Parameters that a problem or a part of the training does not use are found at every step. So buckets stay what they
        # are at first, too: else they are built anew after the first step, and a resumed run of more than two ranks adds up in
        # another order than one that was left alone. torch warns where every parameter is used: one never is.
        device = ranks.device
        self._step.register_parameter("unused", nn.Parameter(torch.zeros(1, device=device)))
        with warnings.catch_warnings():
            # The new name for this would send all buffers at the start, which are equal already.
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated")
            self._ddp = DistributedDataParallel(
                self._step, broadcast_buffers=False, gradient_as_bucket_view=True, find_unused_parameters=True
            )
        self._step = self._ddp

    def accumulating(self, *, last: bool) -> AbstractContextManager[Any]:
        return nullcontext() if last else self._ddp.no_sync()

    def average_(self, logged: list[Tensor]) -> list[Tensor]:
        self.ranks.average_(logged)
        return self._gradients()


class Shard(Replica):
    """A rank that holds its rows of every parameter.

    Optimiser and average see plain tensors, the rows that are here, and not torch's DTensor, with which fused and foreach
    functions mix badly. Precision is autocast's as without shards, and not `MixedPrecisionPolicy`, for which all of a
    block computes in bfloat16, norms included.
    """

    def __init__(self, model: nn.Module, objective: Objective, execution: Execution, ranks: Ranks) -> None:
        Placement.__init__(self, ranks)
        self.model, self.objective = model, objective
        self._trained = sharded = copy.deepcopy(model)  # the stage's own is validated and published
        prepare(sharded, execution)
        step = _Step(sharded, objective)
        mesh = init_device_mesh(ranks.device.type, (ranks.world,))
        for block in blocks_of(sharded):
            fully_shard(block, mesh=mesh)
        self._fsdp = fully_shard(step, mesh=mesh)
        self._step = step
        self._sharded: dict[str, DTensor] = {}
        self.parameters: dict[str, nn.Parameter] = {}
        for name, parameter in sharded.named_parameters():
            assert isinstance(parameter, DTensor)
            self._sharded[name] = parameter
            rows = parameter.to_local().detach()
            self.parameters[name] = nn.Parameter(rows, requires_grad=parameter.requires_grad)
        self._of = {id(part): self._sharded[name] for name, part in self.parameters.items()}
        rows = sum(part.numel() for part in self.parameters.values())
        log.info(
            "rank %d holds %d weights of %d", ranks.rank, rows, sum(p.numel() for p in model.parameters())
        )

    def accumulating(self, *, last: bool) -> AbstractContextManager[Any]:
        # In the last part a block that is used several times, in a rollout, sends at each use what gradients it has: twice, as the
        # parts before left some. What they left is in no public attribute, with which it could be kept for the last use.
        assert isinstance(self._fsdp, FSDPModule)
        self._fsdp.set_requires_gradient_sync(last)
        return nullcontext()

    def average_(self, logged: list[Tensor]) -> list[Tensor]:
        self.ranks.average_(logged)
        for name, sharded in self._sharded.items():
            gradient = sharded.grad
            assert gradient is None or isinstance(gradient, DTensor)
            self.parameters[name].grad = None if gradient is None else gradient.to_local()
            sharded.grad = None
        return self._gradients()

    def norm(self, gradients: list[Tensor]) -> Tensor:
        square = super().norm(gradients).square()
        dist.all_reduce(square)
        return square.sqrt()

    def whole(self, part: Tensor, values: Tensor) -> Tensor:
        sharded = self._of[id(part)]
        given = DTensor.from_local(
            values,
            sharded.device_mesh,
            sharded.placements,
            run_check=False,
            shape=sharded.shape,
            stride=sharded.stride(),
        )
        return given.full_tensor()

    def part(self, part: Tensor, values: Tensor) -> Tensor:
        sharded = self._of[id(part)]
        # No rank asks another: all have the values.
        return distribute_tensor(
            values, sharded.device_mesh, sharded.placements, src_data_rank=None
        ).to_local()

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        super().load_state_dict(tensors)
        with torch.no_grad():
            for name, value in self.model.named_parameters():
                part = self.parameters[name]
                part.copy_(self.part(part, value))
            for name, value in self.model.named_buffers():
                self._trained.get_buffer(name).copy_(value)
