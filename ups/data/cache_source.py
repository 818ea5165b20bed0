"""What a cache is made of: trajectories that are read slab by slab, for a data set may be larger than memory."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ups.data.dataset import (
    Dataset,
    ProblemTrajectories,
    layout_of,
    read_description,
    stored_rows,
    trajectory_file,
    what_is_known,
)
from ups.data.pdebench import read_trajectories
from ups.data.splits import SPLITS


@dataclass(frozen=True, eq=False, kw_only=True)
class CacheSource(ProblemTrajectories):
    """The trajectories of one problem, of all splits.

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
        """All that readers of a cache need to know of its trajectories, JSON."""
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
            "times": self.times.tolist(),
            "coordinates": [axis.tolist() for axis in self.coordinates],
            "splits": {name: rows.tolist() for name, rows in self.splits.items()},
            "rows": self.rows.tolist(),
        }


def source_of_dataset(dataset: Dataset) -> CacheSource:
    """Trajectories that are in memory."""
    known = {field.name: getattr(dataset, field.name) for field in fields(ProblemTrajectories)}
    return CacheSource(**known, read=lambda rows: dataset.fields[rows])


def sources_of_artifact(artifact: Path) -> dict[str, CacheSource]:
    """Trajectories of a download artifact, per problem; none is read yet. Rows are those of `load_datasets`."""
    return {name: _source(artifact, name, said) for name, said in read_description(artifact).items()}


def _source(artifact: Path, name: str, described: dict[str, Any]) -> CacheSource:
    path, layout = trajectory_file(artifact, name), layout_of(described)
    stored = stored_rows(described, SPLITS)
    about = read_trajectories(path, stored[:0], **layout)
    return CacheSource(
        **what_is_known(described, SPLITS, about),
        read=lambda rows: read_trajectories(path, stored[rows], **layout).fields,
    )
