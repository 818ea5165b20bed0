"""Windows straight from the cache's chunks, and batches prepared ahead by one thread.

For caches that do not fit into memory. There are no worker processes: a batch is a few hundred copies out of
mapped files, which one thread does while the model computes, and forked workers would have to be kept away from
CUDA and from each other's memory.
"""

from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ups.data.batch import Batch
from ups.data.cache import LatentCache
from ups.data.window_reader import Windows, require_frames
from ups.data.windows import WindowSource


class StreamingReader:
    """Some trajectories of a cache, read from its chunks window by window; only batches are in memory."""

    def __init__(
        self, cache: LatentCache, rows: NDArray[np.int64], *, device: torch.device, fields: bool = True
    ) -> None:
        """rows: of the cache; device: the one that trains; fields: whether windows have fields."""
        self.cache, self.rows, self.device, self.fields = cache, rows, device, fields

    @property
    def trajectories(self) -> int:
        return len(self.rows)

    @property
    def frames(self) -> int:
        return self.cache.frames

    def windows(self, rows: NDArray[np.int64], starts: NDArray[np.int64], length: int) -> Windows:
        """See `WindowReader`.

        Raises:
            IntegrityError: a chunk that is read for the first time is not what was written.
        """
        require_frames(starts, length, self.frames)
        of_cache, extent = self.rows[rows], (len(rows), length)
        latents = self._buffer((*extent, *self.cache.latent_shape[1:]))
        self.cache.read_latent_windows(of_cache, starts, latents.numpy())
        fields = None
        if self.fields:
            fields = self._buffer((*extent, *self.cache.field_shape[1:]))
            self.cache.read_field_windows(of_cache, starts, fields.numpy())
        return Windows(None if fields is None else self._moved(fields), self._moved(latents))

    def _buffer(self, shape: tuple[int, ...]) -> Tensor:
        return torch.empty(shape, dtype=torch.float16, pin_memory=self.device.type == "cuda")

    def _moved(self, values: Tensor) -> Tensor:
        return values.to(self.device, non_blocking=True).float()


class ReadAhead:
    """A source of batches that prepares the next ones in a thread; a context manager.

    Batches are those of the source, for they are functions of their step. Exceptions of the thread are raised
    by the `batch` that was to return its result.
    """

    def __init__(self, source: WindowSource, *, depth: int) -> None:
        """depth: batches prepared in advance."""
        self.source, self.depth = source, depth
        self._thread = ThreadPoolExecutor(1, "read-ahead")
        self._ahead: deque[tuple[int, Future[Batch]]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the thread, after the batch that it is at."""
        self._ahead.clear()
        self._thread.shutdown(cancel_futures=True)

    def batch(self, step: int) -> Batch:
        """The source's batch of a step; steps are best asked for in order."""
        if self._ahead and self._ahead[0][0] != step:
            self._forget()
        following = self._ahead[-1][0] + 1 if self._ahead else step
        for later in range(following, step + self.depth + 1):
            self._ahead.append((later, self._thread.submit(self.source.batch, later)))
        return self._ahead.popleft()[1].result()

    def reweigh(self, step: int, errors: Mapping[str, float]) -> None:
        """As the source's; batches that were prepared by other weights are thrown away."""
        self._settle()
        before = self.source.state()
        self.source.reweigh(step, errors)
        if self.source.state() != before:
            self._forget()

    def state(self) -> dict[str, Any]:
        return self.source.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        self._forget()
        self.source.restore(state)

    def _settle(self) -> None:
        """Wait until the thread is idle: the source is changed by nobody else."""
        for _, future in self._ahead:
            future.exception()

    def _forget(self) -> None:
        """Throw away what is prepared, and wait for the thread."""
        for _, future in self._ahead:
            if not future.cancel():
                future.exception()
        self._ahead.clear()
