"""The trajectories that a problem's models are scored on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ups.data.dataset import Dataset, StoredTrajectories, read_description, stored_trajectories
from ups.data.problem_inputs import known_mask, scalars_tensor
from ups.errors import DataError
from ups.evaluation.finer_grid import interpolated
from ups.evaluation.scores import Setting
from ups.problems import Field, Problem
from ups.runtime.ranks import device_name

_ROWS_AT_ONCE = 256


@dataclass(frozen=True, eq=False)
class ForecastInputs:
    """What the models of a problem are given for a forecast, beside first frames.

    Attributes:
        problem: its name in the configuration.
        known: [C] bool, which fields the first frames hold; None: all.
        scalars: [S] conditioning.
        steps: applications of the operator.
        time_step: between frames.
        parameters: of the equation.
        coordinates: of the points of first frames and forecasts along each axis, in the domain's units.
        stride: of these points per axis for one of the models.
        sampled: whether an encoder of points sees points drawn from the first frames, as it does wherever it is scored; else it
            sees the frames as they are.
    """

    problem: str
    known: Tensor | None
    scalars: Tensor
    steps: int
    time_step: float
    parameters: dict[str, float]
    coordinates: tuple[NDArray[np.float64], ...]
    stride: int = 1
    sampled: bool = True

    @property
    def grid(self) -> tuple[int, ...]:
        """Of first frames and forecasts."""
        return tuple(map(len, self.coordinates))


@dataclass(frozen=True, eq=False)
class EvaluationSet:
    """One problem's trajectories as they are scored, on the models' device.

    Attributes:
        truth: [n, 1 + t, *grid, C] physical, on the grid of `inputs`.
        mean: [*grid, C] mean output of the train split, of a map; None of an evolution.
    """

    setting: Setting
    truth: Tensor
    inputs: ForecastInputs
    mean: Tensor | None


def evaluation_set(
    name: str,
    dataset: Dataset,
    split: str,
    device: torch.device,
    *,
    seed: int,
    threads: int,
    mean: Tensor | None,
    initial_steps: int = 1,
    stride: int = 1,
    most: int | None = None,
) -> EvaluationSet:
    """A split of a dataset, ready to be scored.

    Args:
        name: of the problem in the configuration.
        seed, threads: of the run that is scored, and of its scoring; for the records.
        initial_steps: that PDEBench's metrics leave out (`evaluation.pdebench_initial_steps`); of a map always one.
        mean: [*grid, C] as from `train_means`, on the models' grid.
        stride: points per axis of the dataset for one of the models.
        most: score no more than so many, the split's first.

    Raises:
        DataError: PDEBench's metrics leave out all frames that there are.
    """
    truth = torch.from_numpy(dataset.split(split)[:most]).to(device)
    initial = 1 if dataset.problem.is_map else initial_steps
    if initial >= truth.shape[1]:
        raise DataError(
            f"{dataset.title} has {truth.shape[1]} frames, and {initial} are left out",
            where="evaluation.pdebench_initial_steps",
            fix="lower it, or score longer trajectories",
        )
    periodic = dataset.boundary == "periodic"
    return EvaluationSet(
        setting=Setting(
            problem=name,
            dataset=dataset.title,
            version=dataset.version,
            split=split,
            fields=_declared(dataset.problem, dataset.names),
            boundary=dataset.boundary,
            is_map=dataset.problem.is_map,
            seed=seed,
            resolution=dataset.grid,
            frames=truth.shape[1],
            device=device_name(device),
            threads=threads,
            time_step=dataset.time_step,
            parameters=dataset.parameters,
            initial_steps=initial,
        ),
        truth=truth,
        inputs=ForecastInputs(
            problem=name,
            known=known_mask(dataset.known[0], device),
            scalars=scalars_tensor(dataset.scalars, device),
            steps=truth.shape[1] - 1,
            time_step=dataset.time_step,
            parameters=dataset.parameters,
            coordinates=tuple(dataset.coordinates),
            stride=stride,
        ),
        mean=None if mean is None else interpolated(mean, stride, periodic=periodic).to(device),
    )


def train_means(download: Path, maps: list[str]) -> dict[str, Tensor]:
    """Mean output of the train split per point, [*grid, C], of the named maps of a download artifact."""
    described = read_description(download)
    return {name: _mean(stored_trajectories(download, described[name], ("train",))) for name in maps}


def _mean(stored: StoredTrajectories) -> Tensor:
    """Read in blocks: the train split may be larger than memory."""
    rows = np.arange(len(stored.about["rows"]))
    total: Any = 0.0
    for block in np.array_split(rows, -(-len(rows) // _ROWS_AT_ONCE)):
        total = total + stored.read(block)[:, -1].sum(axis=0, dtype=np.float64)
    return torch.from_numpy((total / len(rows)).astype(np.float32))


def _declared(problem: Problem, names: tuple[str, ...]) -> tuple[Field, ...]:
    """What is declared of fields, stored or conserved ones, by their names."""
    declared = {field.name: field for field in (*problem.fields, *problem.conserved_fields)}
    return tuple(declared[name] for name in names)
