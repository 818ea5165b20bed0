"""Batches of windows of one or several problems. No worker processes, nothing to fork."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from ups.config.data import Sampling
from ups.data.batch import Batch
from ups.data.mixture import Mixture
from ups.data.problem_inputs import known_mask, scalars_tensor
from ups.data.sampler import draw_windows, permuted_windows
from ups.data.window_reader import WindowReader, index_on
from ups.errors import DataError
from ups.runtime.randomness import numpy_generator

Order = Literal["independent", "permutation"]


@dataclass(frozen=True, eq=False)
class ProblemWindows:
    """The windows of one problem.

    Attributes:
        reader: of their trajectories.
        length: frames of a window.
        strides: distances of these frames, of which every batch has one, drawn at random.
        scalars: [S] conditioning.
        known: [t, C] which fields are known in which frame.
    """

    reader: WindowReader
    length: int
    scalars: list[float]
    known: NDArray[np.bool_]
    strides: tuple[int, ...] = (1,)

    def span(self, stride: int) -> int:
        """Frames from the first to the last of a window, both included."""
        return (self.length - 1) * stride + 1

    def starts(self, stride: int) -> int:
        """First frames that a window can have."""
        return self.reader.frames - self.span(stride) + 1


class WindowSource:
    """Batches by step, in physical units. A batch counts windows, not trajectories, and holds one problem."""

    def __init__(
        self,
        problems: Mapping[str, ProblemWindows],
        *,
        seed: int,
        purpose: str,
        batch_size: int,
        sampling: Sampling = "balanced",
        order: Order = "independent",
        start_exponent: float = 0.0,
        device: torch.device,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        """purpose: name of the stage; stages of one seed draw different batches.

        start_exponent: of `draw_windows`; a permutation has none.

        Raises:
            DataError: a trajectory is shorter than a window.
        """
        for name, problem in problems.items():
            widest = max(problem.strides)
            if problem.starts(widest) < 1:
                raise DataError(
                    f"trajectories have {problem.reader.frames} frames, and a training window takes "
                    f"{problem.span(widest)}",
                    where=name,
                    fix="lower rollout_steps or time_steps, or keep more frames",
                )
        self.problems = dict(problems)
        self.mixture = Mixture(
            list(problems),
            [problem.reader.trajectories * problem.starts(1) for problem in problems.values()],
            sampling=sampling,
            seed=seed,
            purpose=purpose,
        )
        self.seed, self.purpose, self.order = seed, purpose, order
        self.start_exponent = start_exponent
        self.batch_size, self.rank, self.world = batch_size, rank, world
        self.device = device
        self._scalars = {name: scalars_tensor(each.scalars, device) for name, each in problems.items()}
        self._known = {name: known_mask(each.known, device) for name, each in problems.items()}

    def batch(self, step: int) -> Batch:
        """The batch of a step: a function of seed, step and the mixture's weights."""
        name, count = self.mixture.at(step)
        problem = self.problems[name]
        stride = self._stride(name, problem, step)
        rows, starts = self._draw(name, problem, step, count, problem.starts(stride))
        windows = problem.reader.windows(rows, starts, problem.span(stride))
        known = self._known[name]
        if known is not None:
            frames = starts[:, None] + stride * np.arange(problem.length)
            known = known[index_on(frames, known.device)]
        return Batch(
            problem=name,
            scalars=self._scalars[name].expand(len(rows), -1).contiguous(),
            step=step,
            stride=stride,
            fields=None if windows.fields is None else windows.fields[:, ::stride].contiguous(),
            known=known,
            latents=None if windows.latents is None else windows.latents[:, ::stride].contiguous(),
        )

    def reweigh(self, step: int, errors: Mapping[str, float]) -> None:
        """Validation errors per problem, equal on all ranks: they may change the mixture from `step` on."""
        self.mixture.reweigh(step, errors)

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold, JSON."""
        return self.mixture.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        self.mixture.restore(state)

    def _stride(self, name: str, problem: ProblemWindows, step: int) -> int:
        if len(problem.strides) == 1:
            return problem.strides[0]
        generator = numpy_generator(self.seed, self.purpose, name, step, "stride")
        return problem.strides[int(generator.integers(len(problem.strides)))]

    def _draw(
        self, name: str, problem: ProblemWindows, step: int, count: int, starts: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        shape = {
            "batch_size": self.batch_size,
            "trajectories": problem.reader.trajectories,
            "starts": starts,
            "rank": self.rank,
            "world": self.world,
        }
        if self.order == "permutation":
            return permuted_windows(self.seed, self.purpose, name, place=count * self.batch_size, **shape)
        return draw_windows(self.seed, self.purpose, name, step, start_exponent=self.start_exponent, **shape)
