"""The trajectories that a problem's models are scored on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
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
        grid: of the first frames and the forecast, `stride` times as fine as the models'.
    """

    problem: str
    known: Tensor | None
    scalars: Tensor
    steps: int
    time_step: float
    parameters: dict[str, float]
    grid: tuple[int, ...]
    stride: int = 1


@dataclass(frozen=True, eq=False)
class EvaluationSet:
    """One problem's trajectories as they are scored, on the models' device.

    Attributes:
        truth: [n, 1 + t, *grid, C] physical; the grid is `stride` times as fine as the models'.
        known: [C] bool, which fields the first frame holds; None: all.
        scalars: [S] conditioning.
        mean: [*grid, C] mean output of the train split, of a map; None of an evolution.
    """

    setting: Setting
    truth: Tensor
    known: Tensor | None
    scalars: Tensor
    mean: Tensor | None
    stride: int

    @property
    def inputs(self) -> ForecastInputs:
        """What the models are given, beside first frames."""
        return ForecastInputs(
            self.setting.problem,
            self.known,
            self.scalars,
            self.steps,
            self.time_step,
            self.parameters,
            self.setting.resolution,
            self.stride,
        )

    @property
    def steps(self) -> int:
        """Applications of the operator."""
        return self.truth.shape[1] - 1

    @property
    def time_step(self) -> float:
        """Between frames."""
        return self.setting.time_step

    @property
    def parameters(self) -> dict[str, float]:
        """Of the equation."""
        return self.setting.parameters


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
        known=known_mask(dataset.known[0], device),
        scalars=scalars_tensor(dataset.scalars, device),
        mean=None if mean is None else interpolated(mean, stride, periodic=periodic).to(device),
        stride=stride,
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
