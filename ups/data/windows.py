"""Device-resident batches of windows, drawn across trajectories. No worker processes, nothing to fork."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ups.data.batch import Batch
from ups.data.sampler import draw_windows
from ups.errors import DataError


class WindowSource:
    """Batches of `window` consecutive frames out of arrays held on the device.

    A batch counts windows, not trajectories. Raw values are stored, and normalised when they are fed.
    """

    def __init__(
        self,
        *,
        seed: int,
        batch_size: int,
        window: int,
        scalars: list[float],
        device: torch.device,
        fields: NDArray[np.floating] | None = None,
        latents: NDArray[np.floating] | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        """fields [n, t, *grid, C] normalised, latents [n, t, K, d] standardised; at least one of them."""
        self.fields = None if fields is None else torch.from_numpy(fields).to(device)
        self.latents = None if latents is None else torch.from_numpy(latents).to(device)
        present = self.fields if self.fields is not None else self.latents
        if present is None:
            raise ValueError("a source needs fields or latents")
        self.trajectories, frames = present.shape[:2]
        if window > frames:
            raise DataError(
                f"trajectories have {frames} frames, and a training window takes {window}",
                fix="lower rollout_steps, or keep more frames",
            )
        self.starts = frames - window + 1
        self.window = window
        self.seed, self.batch_size, self.rank, self.world = seed, batch_size, rank, world
        self.scalars = torch.tensor(scalars, dtype=torch.float32, device=device)
        self.device = device

    def batch(self, step: int) -> Batch:
        """The batch of a step: a function of the seed and the step."""
        rows, starts = draw_windows(
            self.seed,
            step,
            batch_size=self.batch_size,
            trajectories=self.trajectories,
            starts=self.starts,
            rank=self.rank,
            world=self.world,
        )
        row = torch.from_numpy(rows).to(self.device)[:, None]
        frame = torch.from_numpy(starts).to(self.device)[:, None] + torch.arange(
            self.window, device=self.device
        )
        return Batch(
            scalars=self.scalars.expand(len(rows), -1),
            fields=None if self.fields is None else _take(self.fields, row, frame),
            latents=None if self.latents is None else _take(self.latents, row, frame),
        )


def _take(values: Tensor, row: Tensor, frame: Tensor) -> Tensor:
    return values[row, frame].float()
