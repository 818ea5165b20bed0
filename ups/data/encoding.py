"""Windows of raw fields that are encoded when they are drawn, without a cache of latents.

For a data set whose latents would not be used often enough to be worth storing. Fields are returned as the cache
would return them, rounded to float16; latents are computed from the exact fields and not rounded, so they differ
from cached ones by the rounding and by the order of additions in batches of another size: at most 2 units of
float16 in the last place (tested).
"""

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ups.data.dataset import Dataset
from ups.data.half import rounded_to_half
from ups.data.problem_inputs import known_mask
from ups.data.window_reader import Windows, require_frames


class Encode(Protocol):
    """Physical frames [B, T, *grid, C] to standardised latents [B, T, K, d]."""

    def __call__(self, fields: Tensor, elapsed: Tensor, first: Tensor, known: Tensor | None) -> Tensor:
        """elapsed: [B, T] since the first states [B, *grid, C]; known: [B, T, C], None: all."""
        ...


class EncodingReader:
    """Some trajectories of a dataset, whose float32 fields are in the host's memory."""

    def __init__(
        self, dataset: Dataset, rows: NDArray[np.int64], encode: Encode, *, device: torch.device
    ) -> None:
        """rows: of the dataset; encode: runs on `device`, the one that trains.

        Raises:
            DataError: a value does not fit float16, so that no cache of the data could exist.
        """
        self.dataset, self.rows, self.encode, self.device = dataset, rows, encode, device
        self._known = known_mask(dataset.known, device)
        for row in rows.tolist():
            rounded_to_half(dataset.fields[row], f"{dataset.title}, trajectory {row}")

    @property
    def trajectories(self) -> int:
        return len(self.rows)

    @property
    def frames(self) -> int:
        return self.dataset.fields.shape[1]

    @torch.no_grad()
    def windows(self, rows: NDArray[np.int64], starts: NDArray[np.int64], length: int) -> Windows:
        """See `WindowReader`."""
        require_frames(starts, length, self.frames)
        frames = starts[:, None] + np.arange(length)
        drawn = self.dataset.fields[self.rows[rows][:, None], frames]
        fields = torch.from_numpy(drawn).to(self.device, non_blocking=True)
        known = None
        if self._known is not None:
            known = self._known[torch.from_numpy(frames).to(self.device)]
        first = torch.from_numpy(self.dataset.fields[self.rows[rows], 0]).to(self.device, non_blocking=True)
        elapsed = self.dataset.time_step * torch.from_numpy(frames).to(self.device).float()
        latents = self.encode(fields, elapsed, first, known)
        return Windows(fields.half().float(), latents.float())
