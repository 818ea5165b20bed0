"""What a cache is made of: trajectories that are read chunk by chunk, for a data set may be larger than memory."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ups.data.cache import TIME
from ups.data.dataset import Dataset, ProblemTrajectories, read_description, stored_trajectories
from ups.problems.generated import LEARNT_SPLITS


@dataclass(frozen=True, eq=False, kw_only=True)
class CacheSource(ProblemTrajectories):
    """The trajectories of one problem, of the splits that trainings use.

    Attributes:
        read: rows [m] to their fields [m, t, *grid, C] float32, physical units; unknown values are 0.
    """

    read: Callable[[NDArray[np.int64]], NDArray[np.float32]]

    @property
    def trajectories(self) -> int:
        return len(self.rows)

    @property
    def frames(self) -> int:
        return len(self.known)

    @property
    def grid(self) -> tuple[int, ...]:
        return tuple(len(axis) for axis in self.coordinates)

    def attributes(self) -> dict[str, Any]:
        """All that readers of a cache need to know of its trajectories beside their axes, JSON."""
        return {
            "equation": self.problem.name,
            "title": self.title,
            "version": self.version,
            "names": list(self.names),
            "scored": self.scored,
            "known": self.known.tolist(),
            "boundary": self.boundary,
            "parameters": self.parameters,
            "scalars": self.scalars,
            "time_step": self.time_step,
            "splits": {name: rows.tolist() for name, rows in self.splits.items()},
            "rows": self.rows.tolist(),
        }

    @property
    def axes(self) -> dict[str, NDArray[np.float64]]:
        """Time and space axes of a trajectory, by name."""
        return {TIME: self.times} | dict(zip(self.problem.axes, self.coordinates, strict=True))


def source_of_dataset(dataset: Dataset) -> CacheSource:
    """Trajectories that are in memory."""
    known = {field.name: getattr(dataset, field.name) for field in fields(ProblemTrajectories)}
    return CacheSource(**known, read=lambda rows: dataset.fields[rows])


def sources_of_artifact(artifact: Path) -> dict[str, CacheSource]:
    """Trajectories of a download artifact that trainings use, per problem; none is read yet. Rows are those of
    `load_datasets` of the same splits."""
    stored = {
        name: stored_trajectories(artifact, described, LEARNT_SPLITS)
        for name, described in read_description(artifact).items()
    }
    return {name: CacheSource(**each.about, read=each.read) for name, each in stored.items()}
