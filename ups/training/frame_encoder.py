"""Many frames through the frozen encoder, as fast as the machine allows."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from ups.data.dataset import ProblemTrajectories
from ups.data.problem_inputs import known_mask
from ups.models.codec import Codec

_CPU_TOKENS = 4096
_CUDA_TOKENS = 131_072


class FrameEncoder:
    """Encodes whole trajectories; a context manager.

    On a CPU every thread encodes its own frames, each call a few thousand tokens, whose activations fit a
    core's cache. Trajectories per second on two cores (201 frames, 32 tokens, 2 layers of width 64): one thread
    34 with 4096 tokens a call and 17 to 25 with 32768; two such threads 56; two threads inside each of torch's
    operations 9 at most, for beside other work they wait for each other after every operation. The bits do not
    depend on the number of threads either. On a GPU one call takes thousands of frames.
    """

    def __init__(
        self, codec: Codec, sources: Mapping[str, ProblemTrajectories], *, device: torch.device, threads: int
    ) -> None:
        self.codec, self.sources, self.device = codec, sources, device
        self._parallel = threads if device.type == "cpu" else 1
        self._pool = ThreadPoolExecutor(self._parallel, "encoder")
        self._threads_before = torch.get_num_threads()

    def __enter__(self) -> Self:
        if self.device.type == "cpu":
            torch.set_num_threads(1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)
        torch.set_num_threads(self._threads_before)

    def __call__(
        self, problem: str, fields: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Physical fields [n, t, *grid, C] to standardised latents [n, t, K, d], and the fields as the encoder sees them."""
        codec, source = self.codec.of(problem), self.sources[problem]
        trajectories = torch.from_numpy(fields)
        known = known_mask(source.known, self.device)
        tokens = _CPU_TOKENS if self.device.type == "cpu" else _CUDA_TOKENS
        part = max(1, tokens // (codec.shape.token_grid.token_count * fields.shape[1]))

        @torch.no_grad()
        def encode(start: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
            share = codec.seen(trajectories[start : start + part].to(self.device))
            latents = codec.encode_trajectories(
                share, known, time_step=source.time_step, parameters=source.parameters
            )
            return latents.cpu().numpy(), share.cpu().numpy()

        latents, seen = zip(*self._pool.map(encode, range(0, len(fields), part)), strict=True)
        return np.concatenate(latents), np.concatenate(seen)
