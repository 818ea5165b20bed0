"""The trajectories of a run: the artifact of the download stage, read back.

Trajectories of each problem and split are an artifact of their own (`data`), which other runs share: an HDF5 file in
PDEBench's layout on its own grid, and `description.json`. The download artifact holds `splits.json`, which says for
each problem of the run where they are and how to stride. Everything else in the chain reads through here, so a
genuine file and a generated one differ in nothing.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ups.data.pdebench import read_trajectories
from ups.data.splits import TRAJECTORIES
from ups.problems import AMPLITUDE, LENGTH, PROBLEMS, TIME_STEP, Boundary, Problem
from ups.problems.generated import SPLITS

DESCRIPTION = "splits.json"
PART_DESCRIPTION = "description.json"


@dataclass(frozen=True, eq=False, kw_only=True)
class ProblemTrajectories:
    """What is known of some trajectories of one problem, wherever their fields are.

    Attributes:
        problem: its declaration.
        names: of the C fields.
        known: [t, C] which fields are known in which frame. All, but in the first frame of a map.
        times: [t] float64.
        coordinates: [points] float64 per space axis, as stored in the file.
        parameters: PDE parameters by name.
        boundary: of the domain.
        splits: rows per split, counted within these trajectories.
        rows: [n] numbers of these trajectories in the original file.
        title: for records, e.g. "burgers1d nu=0.01".
        version: which data these are, for records.
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

    @property
    def scored(self) -> list[int]:
        """Channels that a forecast is scored on: all that are not given."""
        return scored_channels(self.problem)

    @property
    def time_step(self) -> float:
        """Between frames; 1 for a map."""
        return time_step(self.problem, self.times)

    @property
    def scalars(self) -> list[float]:
        """What the models are conditioned on; see `conditioning_scalars`."""
        return conditioning_scalars(self.problem, self.times, self.parameters)


@dataclass(frozen=True, eq=False, kw_only=True)
class Dataset(ProblemTrajectories):
    """Trajectories of some splits of one problem, in memory.

    Attributes:
        fields: [n, t, *grid, C] float32, physical units; what is not known is 0.
    """

    fields: NDArray[np.float32]

    @property
    def grid(self) -> tuple[int, ...]:
        return self.fields.shape[2:-1]

    def split(self, name: str) -> NDArray[np.float32]:
        """Fields [n, t, *grid, C] of one split."""
        return self.fields[self.splits[name]]


def scored_channels(problem: Problem) -> list[int]:
    """Channels of a problem that are not given."""
    return [channel for channel, field in enumerate(problem.fields) if not field.given]


def time_step(problem: Problem, times: NDArray[np.float64]) -> float:
    """Between frames; 1 for a map. From the first and last stamp: float32 stamps one step apart are off by 1e-5."""
    return 1.0 if problem.is_map else float(times[-1] - times[0]) / (len(times) - 1)


def conditioning_scalars(
    problem: Problem, times: NDArray[np.float64], parameters: dict[str, float]
) -> list[float]:
    """Natural logarithms of the equation's dimensionless numbers, for an amplitude of 1."""
    lower, upper = problem.domain[0]
    logarithms = {name: math.log(value) for name, value in parameters.items()}
    logarithms |= {LENGTH: math.log(upper - lower), AMPLITUDE: 0.0}
    logarithms[TIME_STEP] = math.log(time_step(problem, times))
    return [
        math.fsum(exponent * logarithms[name] for name, exponent in number.items())
        for number in problem.numbers
    ]


def read_description(artifact: Path) -> dict[str, dict[str, Any]]:
    """What a download artifact says of each problem, in alphabetical order."""
    return json.loads((artifact / DESCRIPTION).read_text())


def load_datasets(artifact: Path, splits: tuple[str, ...] = SPLITS) -> dict[str, Dataset]:
    """Read the trajectories of the given splits of every problem from a download artifact."""
    return {
        name: _load(stored_trajectories(artifact, described, splits))
        for name, described in read_description(artifact).items()
    }


def stored_trajectories(
    artifact: Path, described: dict[str, Any], splits: tuple[str, ...]
) -> "StoredTrajectories":
    """Those of some splits of a problem.

    artifact: of the download stage. described: what it says of the problem.
    """
    return StoredTrajectories(described, {split: artifact / described["parts"][split] for split in splits})


class StoredTrajectories:
    """The trajectories of some splits of one problem, one split after the other; none is read yet."""

    def __init__(self, described: Mapping[str, Any], directories: Mapping[str, Path]) -> None:
        """described: problem, variables and space_stride. directories: of the splits."""
        descriptions = [json.loads((path / PART_DESCRIPTION).read_text()) for path in directories.values()]
        self._layout = {key: described[key] for key in ("problem", "variables", "space_stride")}
        self._files = [path / TRAJECTORIES for path in directories.values()]
        self._ends = np.cumsum([len(part["rows"]) for part in descriptions])
        self._starts = self._ends - [len(part["rows"]) for part in descriptions]
        read = read_trajectories(self._files[0], np.arange(0), **self._layout)
        self.about: dict[str, Any] = {
            "problem": PROBLEMS[described["problem"]],
            "names": read.names,
            "known": read.known,
            "times": read.times,
            "coordinates": read.coordinates,
            "parameters": read.parameters,
            "boundary": read.boundary,
            "splits": {
                split: np.arange(start, end)
                for split, start, end in zip(directories, self._starts, self._ends, strict=True)
            },
            "rows": np.concatenate([np.asarray(part["rows"], dtype=np.int64) for part in descriptions]),
            "title": descriptions[0]["title"],
            "version": descriptions[0]["version"],
        }
        """The fields of `ProblemTrajectories`."""
        self._shape = read.fields.shape[1:]

    def read(self, rows: NDArray[np.int64], *, frames: int | None = None) -> NDArray[np.float32]:
        """Rows [m], counted over all splits, to their fields [m, t, *grid, C] float32; unknown values are 0.

        frames: how many from the first; None: all, and of a map both.
        """
        kept, *rest = self._shape
        fields = np.empty((len(rows), kept if frames is None else frames, *rest), dtype=np.float32)
        for file, start, end in zip(self._files, self._starts, self._ends, strict=True):
            here = (start <= rows) & (rows < end)
            if here.any():
                fields[here] = read_trajectories(
                    file, rows[here] - start, frames=frames, **self._layout
                ).fields
        return fields


def _load(stored: StoredTrajectories) -> Dataset:
    return Dataset(**stored.about, fields=stored.read(np.arange(len(stored.about["rows"]))))
