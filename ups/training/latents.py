"""What the stages behind the cache read: latents and fields of each problem, cached or encoded on the fly."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ups.config import Configuration
from ups.config.schema import LoadingMode
from ups.data.cache import LatentCache, open_caches
from ups.data.dataset import Dataset, load_datasets
from ups.data.encoding import EncodingReader
from ups.data.loading import open_reader
from ups.data.problem_inputs import known_mask, scalars_tensor
from ups.data.splits import fitted_and_held_out
from ups.data.streaming import ReadAhead
from ups.data.window_reader import WindowReader
from ups.data.windows import ProblemWindows, WindowSource
from ups.models.codec import Codec, ProblemCodec
from ups.models.evolution import Evolution
from ups.problems import Symmetry
from ups.runtime.ranks import Ranks
from ups.training.step import BatchSource

_ENCODED_FRAMES = 4096  # frames per call of the encoder


@dataclass(frozen=True, eq=False)
class LatentProblem:
    """One problem's trajectories in latents and fields.

    Attributes:
        codec: the frozen codec, bound to this problem.
        source: the cache, or the raw trajectories that are encoded when they are read.
        device: the one that trains.
        encode_anew: the codec is not the one that wrote the cache, and of the cache only fields are read.
    """

    codec: ProblemCodec
    source: LatentCache | Dataset
    device: torch.device
    encode_anew: bool = False

    @property
    def known(self) -> NDArray[np.bool_]:
        """[t, C] which fields are known in which frame."""
        return self.source.known

    @property
    def scalars(self) -> list[float]:
        """[S] conditioning."""
        return self.source.scalars

    def evolution(self, augment: tuple[Symmetry, ...] = ()) -> Evolution:
        """What an objective must know beside the codec."""
        return Evolution(self.source.time_step, self.source.parameters, augment)

    def rows(self, split: str) -> NDArray[np.int64]:
        """Rows of a split."""
        return self.source.splits[split] if isinstance(self.source, Dataset) else self.source.rows(split)

    def rows_fields(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Physical fields [n, t, *grid, C] of some rows, as stored: rounded to float16."""
        if isinstance(self.source, Dataset):
            return self.source.fields[rows].astype(np.float16).astype(np.float32)
        return self.source.fields(rows).astype(np.float32)

    def latents(self, rows: NDArray[np.int64]) -> Tensor:
        """Standardised latents [n, t, K, d] float32 of some rows, on the device that trains."""
        if isinstance(self.source, LatentCache) and not self.encode_anew:
            return torch.from_numpy(self.source.latents(rows)).to(self.device).float()
        known = known_mask(self.known, self.device)
        at_once = max(1, _ENCODED_FRAMES // len(self.known))
        with torch.no_grad():
            parts = [
                self.codec.encode_trajectories(
                    self._seen(part),
                    known,
                    time_step=self.source.time_step,
                    parameters=self.source.parameters,
                )
                for part in np.array_split(rows, -(-len(rows) // at_once))
            ]
        return torch.cat(parts)

    def conditioning(self, rows: NDArray[np.int64]) -> Tensor:
        """Scalars [n, S] of some rows in the frames of their trajectories, on the device that trains."""
        # As stored. The rounding comes last: where a trajectory is seen is drawn by its bits.
        first = self._seen(rows, slice(1))[:, 0].half().float()
        frame = self.codec.frame(first, self.source.parameters)
        return frame.conditioning(scalars_tensor(self.scalars, self.device))

    def _seen(self, rows: NDArray[np.int64], frames: slice = slice(None)) -> Tensor:
        """Physical fields [n, t, *grid, C] of some rows as the encoder sees them, on the device that trains."""
        if isinstance(self.source, Dataset):
            return self.codec.seen(torch.from_numpy(self.source.fields[rows, frames]).to(self.device))
        return torch.from_numpy(self.rows_fields(rows)[:, frames]).to(self.device)

    @torch.no_grad()
    def encode(self, fields: Tensor, elapsed: Tensor, first: Tensor, known: Tensor | None) -> Tensor:
        """See `ups.data.encoding.Encode`."""
        return self.codec.encode(fields, elapsed, self.codec.frame(first, self.source.parameters), known)

    def reader(self, rows: NDArray[np.int64], mode: LoadingMode) -> tuple[WindowReader, LoadingMode]:
        """Windows of some rows, and how they are held: the loading mode with `auto` resolved."""
        if isinstance(self.source, Dataset):
            return EncodingReader(self.source, rows, self.encode, device=self.device), mode
        if mode == "encode":
            raise ValueError("a cache holds latents; only raw trajectories are encoded on the fly")
        return open_reader(self.source, rows, mode=mode, device=self.device)


def open_problems(
    inputs: dict[str, Path],
    configuration: Configuration,
    codec: Codec,
    ranks: Ranks,
    *,
    encode_anew: bool = False,
) -> dict[str, LatentProblem]:
    """All problems of a run, from the cache or, if `loading.mode` is `encode`, from the raw trajectories."""
    if configuration.loading.mode == "encode":
        return {
            name: LatentProblem(codec.of(name), data, ranks.device)
            for name, data in load_datasets(inputs["download"], ("train", "validation")).items()
        }
    return {
        name: LatentProblem(codec.of(name), cache, ranks.device, encode_anew)
        for name, cache in open_caches(inputs["cache_encode"]).items()
    }


@contextmanager
def window_source(
    problems: dict[str, LatentProblem],
    configuration: Configuration,
    ranks: Ranks,
    *,
    stage: str,
    batch_size: int,
    length: int,
    strides: tuple[int, ...] = (1,),
) -> Iterator[tuple[BatchSource, dict[str, str]]]:
    """Batches of windows of the trajectories that the operator fits, and how each problem is held.

    length, strides: of a window, in frames; a map's has its two.
    """
    windows, held = {}, {}
    for name, problem in problems.items():
        rows, _ = fitted_and_held_out(
            problem.rows("train"), configuration.training.operator.residual_fraction
        )
        reader, held[name] = problem.reader(rows, configuration.loading.mode)
        is_map = configuration.problems[name].problem.is_map
        windows[name] = ProblemWindows(
            reader=reader,
            length=min(length, len(problem.known)) if is_map else length,
            strides=(1,) if is_map else strides,
            scalars=problem.scalars,
            known=problem.known,
        )
    source = WindowSource(
        windows,
        seed=configuration.seed,
        purpose=stage,
        batch_size=batch_size,
        sampling=configuration.sampling,
        order=configuration.loading.order,
        start_exponent=configuration.training.operator.start_exponent,
        device=ranks.device,
        rank=ranks.rank,
        world=ranks.world,
    )
    if "stream" not in held.values():
        yield source, held
        return
    with ReadAhead(source, depth=configuration.loading.read_ahead) as ahead:
        yield ahead, held
