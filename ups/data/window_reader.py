"""Where windows are taken from: the one interface of all loaders, and the one that holds everything in memory.

A reader gives windows of the trajectories of one problem that a training may draw; it knows nothing of seeds,
batches and normalisation. All readers give the same values for the same rows.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Windows:
    """Consecutive frames of some trajectories, float32, on the device that trains.

    Attributes:
        fields: [B, T, *grid, C], physical units.
        latents: [B, T, K, d], standardised.
    """

    fields: Tensor | None
    latents: Tensor | None


class WindowReader(Protocol):
    """Some trajectories of one problem."""

    @property
    def trajectories(self) -> int: ...

    @property
    def frames(self) -> int: ...

    def windows(self, rows: NDArray[np.int64], starts: NDArray[np.int64], length: int) -> Windows:
        """Frames starts[i] to starts[i] + length - 1 of trajectory rows[i], rows counted within these trajectories."""
        ...


def require_frames(starts: NDArray[np.int64], length: int, frames: int) -> None:
    """Windows lie within their trajectories.

    Raises:
        ValueError: one does not.
    """
    if len(starts) and not (starts.min() >= 0 and starts.max() + length <= frames):
        raise ValueError(f"windows of {length} frames from {starts} do not lie within {frames} frames")


def index_on(index: NDArray[np.int64], device: torch.device) -> Tensor:
    """An index on a device; the host does not wait for what a GPU still computes, as it does at a copy from pageable memory."""
    values = torch.from_numpy(index)
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values


class InMemoryReader:
    """All values in memory: of the device that trains, or of the host, then moved batch by batch."""

    def __init__(
        self, *, device: torch.device, fields: Tensor | None = None, latents: Tensor | None = None
    ) -> None:
        """fields [n, t, *grid, C] physical, latents [n, t, K, d] standardised, of any float type; at least one.

        device: the one that trains; where the tensors lie says which of the two kinds of memory it is.
        """
        present = fields if fields is not None else latents
        if present is None:
            raise ValueError("a reader needs fields or latents")
        self.fields, self.latents, self.device = fields, latents, device
        self._trajectories, self._frames = present.shape[:2]
        self._place = present.device

    @property
    def trajectories(self) -> int:
        return self._trajectories

    @property
    def frames(self) -> int:
        return self._frames

    def windows(self, rows: NDArray[np.int64], starts: NDArray[np.int64], length: int) -> Windows:
        require_frames(starts, length, self._frames)
        first = index_on(rows * self._frames + starts, self._place)
        frames = (first[:, None] + torch.arange(length, device=self._place)).flatten()

        def take(values: Tensor | None) -> Tensor | None:
            if values is None:
                return None
            taken = self._gathered(values.flatten(0, 1), frames).unflatten(0, (len(rows), length))
            return taken.to(self.device, non_blocking=True).float()

        return Windows(take(self.fields), take(self.latents))

    def _gathered(self, values: Tensor, frames: Tensor) -> Tensor:
        """Some of all frames. What goes from the host to a GPU is gathered in pinned memory: only from there
        does the copy overlap with the computation. All values stay pageable, as a host has little to pin.
        """
        if self._place == self.device or self.device.type != "cuda":
            return values.index_select(0, frames)
        buffer = torch.empty((len(frames), *values.shape[1:]), dtype=values.dtype, pin_memory=True)
        return torch.index_select(values, 0, frames, out=buffer)
