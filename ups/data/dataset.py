"""The trajectories of a run: the artifact of the download stage, read back.

The artifact is an HDF5 file in PDEBench's layout on its own grid, and `splits.json`, which says which rows
serve which split and how to stride. Everything else in the chain reads through here, so a genuine file and
a generated one differ in nothing.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ups.data.pdebench import read_trajectories

TRAJECTORIES = "trajectories.hdf5"
SPLITS = "splits.json"


@dataclass(frozen=True, eq=False)
class Dataset:
    """Trajectories of some splits.

    Attributes:
        fields: [n, t, *grid, C] float32, physical units.
        names: of the C fields.
        times: [t] float64.
        coordinates: [*grid points, axes] float64, as stored in the file.
        parameters: PDE parameters by name.
        splits: rows of `fields` per split.
        rows: [n] numbers of these trajectories in the original file.
        name: for records, e.g. "burgers1d nu=0.01".
        version: which data these are, for records.
    """

    fields: NDArray[np.float32]
    names: tuple[str, ...]
    times: NDArray[np.float64]
    coordinates: NDArray[np.float64]
    parameters: dict[str, float]
    splits: dict[str, NDArray[np.int64]]
    rows: NDArray[np.int64]
    name: str
    version: str

    @property
    def grid(self) -> tuple[int, ...]:
        return self.fields.shape[2:-1]

    @property
    def scalars(self) -> list[float]:
        """What the models are conditioned on: logarithms of the time step and of each PDE parameter."""
        return conditioning_scalars(float(self.times[1] - self.times[0]), self.parameters)

    def split(self, name: str) -> NDArray[np.float32]:
        """Fields [n, t, *grid, C] of one split."""
        return self.fields[self.splits[name]]


def conditioning_scalars(time_step: float, parameters: dict[str, float]) -> list[float]:
    """Natural logarithms of the time step and of the PDE parameters in order of their names."""
    return [math.log(time_step), *(math.log(parameters[name]) for name in sorted(parameters))]


def load_dataset(artifact: Path, splits: tuple[str, ...] = ("train", "validation", "test")) -> Dataset:
    """Read the trajectories of the given splits from a download artifact."""
    described = json.loads((artifact / SPLITS).read_text())
    wanted = np.concatenate([np.asarray(described["rows"][name], dtype=np.int64) for name in splits])
    read = read_trajectories(artifact / TRAJECTORIES, wanted, space_stride=described["space_stride"])
    original = np.asarray(described["original_rows"], dtype=np.int64)
    ends = np.cumsum([len(described["rows"][name]) for name in splits])
    starts = np.concatenate([[0], ends[:-1]])
    return Dataset(
        fields=read.fields[..., None],
        names=("u",),
        times=read.times,
        coordinates=read.coordinates[:, None],
        parameters=read.parameters,
        splits={
            name: np.arange(a, b) for name, a, b in zip(splits, starts.tolist(), ends.tolist(), strict=True)
        },
        rows=original[wanted],
        name=described["name"],
        version=described["version"],
    )
