"""What a cache is made of: trajectories that are read slab by slab, for a data set may be larger than memory."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ups.data.dataset import Dataset, conditioning_scalars, read_description, scored_channels, trajectory_file
from ups.data.pdebench import read_trajectories
from ups.data.splits import SPLITS
from ups.problems import PROBLEMS, Boundary, Problem


@dataclass(frozen=True, eq=False)
class CacheSource:
    """The trajectories of one problem, of all splits.

    Attributes:
        problem: its declaration.
        names: of the C fields.
        known: [t, C] which fields are known in which frame.
        times: [t].
        coordinates: [points] per space axis.
        parameters, boundary, title, version: see `Dataset`.
        splits: rows per split, counted from 0 over all splits.
        rows: [n] numbers of these trajectories in the original file.
        read: rows [m] to their fields [m, t, *grid, C] float32, physical units; unknown values are 0.
    """

    problem: Problem
    names: tuple[str, ...]
    known: NDArray[np.bool_]
    times: NDArray[np.float64]
    coordinates: tuple[NDArray[np.float64], ...]
    parameters: dict[str, float]
    boundary: Boundary
    splits: dict[str, NDArray[np.int64]]
    rows: NDArray[np.int64]
    title: str
    version: str
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
            "scored": scored_channels(self.problem),
            "known": self.known.tolist(),
            "boundary": self.boundary,
            "parameters": self.parameters,
            "scalars": conditioning_scalars(self.problem, self.times, self.parameters),
            "times": self.times.tolist(),
            "coordinates": [axis.tolist() for axis in self.coordinates],
            "splits": {name: rows.tolist() for name, rows in self.splits.items()},
            "rows": self.rows.tolist(),
        }


def source_of_dataset(dataset: Dataset) -> CacheSource:
    """Trajectories that are in memory."""
    return CacheSource(
        problem=dataset.problem,
        names=dataset.names,
        known=dataset.known,
        times=dataset.times,
        coordinates=dataset.coordinates,
        parameters=dataset.parameters,
        boundary=dataset.boundary,
        splits=dataset.splits,
        rows=dataset.rows,
        title=dataset.title,
        version=dataset.version,
        read=lambda rows: dataset.fields[rows],
    )


def sources_of_artifact(artifact: Path) -> dict[str, CacheSource]:
    """Trajectories of a download artifact, per problem; none is read yet. Rows are those of `load_datasets`."""
    return {name: _source(artifact, name, said) for name, said in read_description(artifact).items()}


def _source(artifact: Path, name: str, described: dict[str, Any]) -> CacheSource:
    path = trajectory_file(artifact, name)
    layout = {key: described[key] for key in ("problem", "variables", "space_stride")}
    stored = np.concatenate([np.asarray(described["rows"][split], dtype=np.int64) for split in SPLITS])
    about = read_trajectories(path, stored[:0], **layout)
    ends = np.cumsum([len(described["rows"][split]) for split in SPLITS]).tolist()
    return CacheSource(
        problem=PROBLEMS[described["problem"]],
        names=about.names,
        known=about.known,
        times=about.times,
        coordinates=about.coordinates,
        parameters=about.parameters,
        boundary=about.boundary,
        splits={
            split: np.arange(start, end) for split, start, end in zip(SPLITS, [0, *ends], ends, strict=False)
        },
        rows=np.asarray(described["original_rows"], dtype=np.int64)[stored],
        title=described["title"],
        version=described["version"],
        read=lambda rows: read_trajectories(path, stored[rows], **layout).fields,
    )
