"""Training steps as CUDA graphs: the host launches a whole step, and not its thousand kernels one by one.

The networks here are small, and a GPU that is told each kernel apart waits for the host most of the time. A graph repeats
the same kernels on the same memory, so it gives the same bits as the step that was captured (tested on a GPU); what differs
between steps lies in memory that the host fills before: the batch, the learning rate, the decay of the average, the
generator's seed.
"""

from collections.abc import Hashable
from dataclasses import dataclass

import torch
from torch import Tensor

from ups.data.batch import Batch
from ups.training.step import Update

_FIRST_STEPS = 3  # as they are: libraries and optimisers allocate in their first steps what a graph may not
_MOST_GRAPHS = 32  # each holds memory; the one that was replayed longest ago goes first


@dataclass
class _Captured:
    """A graph, the batch that it reads, and what it writes for the record."""

    graph: torch.cuda.CUDAGraph
    batch: Batch
    names: list[str]
    logged: Tensor


class CapturedUpdate:
    """An update that is captured once for each problem, stride and variant of the objective, and then replayed.

    Attributes:
        captured, discarded: numbers of graphs that were made, and given up for others.
    """

    def __init__(self, update: Update) -> None:
        self.update = update
        self._stream, self._pool = torch.cuda.Stream(), torch.cuda.graph_pool_handle()
        self._taken: dict[Hashable, int] = {}
        self._captured: dict[Hashable, _Captured] = {}
        self.captured = self.discarded = 0

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """See `Update`."""
        kind = (batch.problem, batch.stride, len(batch), self.update.state.replica.objective.variant(batch))
        taken = self._taken[kind] = self._taken.get(kind, 0) + 1
        if taken <= _FIRST_STEPS:
            logged = self._as_it_is(batch)
            scale = self.update.state.loss_scale
            if scale is not None and not scale.begun:
                self._taken[kind] -= 1
            return logged
        captured = self._captured.pop(kind, None) or self._capture(batch)
        if len(self._captured) == _MOST_GRAPHS:
            del self._captured[next(iter(self._captured))]
            self.discarded += 1
        self._captured[kind] = captured
        for name, values in captured.batch.tensors.items():
            values.copy_(getattr(batch, name), non_blocking=True)
        captured.graph.replay()
        # A copy: graphs share their memory, and another one's replay may write there.
        return dict(zip(captured.names, captured.logged.clone().unbind(), strict=True))

    def _as_it_is(self, batch: Batch) -> dict[str, Tensor]:
        """On the stream of the capture: autograd adds gradients up on the stream that made their graph."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            logged = self.update(batch)
        torch.cuda.current_stream().wait_stream(self._stream)
        return logged

    def _capture(self, batch: Batch) -> _Captured:
        still = batch.each(torch.clone)
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self.update.generator)
        # Other threads, as that which reads ahead, go on with theirs meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            logged = self.update(still)
            values = torch.stack(list(logged.values()))
        self.captured += 1
        return _Captured(graph, still, list(logged), values)
