"""The whole result table of a problem: trivial forecasts and every forecaster on the same trajectories."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ups.config import Configuration
from ups.data.dataset import Dataset, StoredTrajectories, read_description, stored_trajectories
from ups.evaluation.baselines import persistence, spatial_mean, train_mean
from ups.evaluation.equivariance import equivariance_errors
from ups.evaluation.finer_grid import finer_coordinates, interpolated, strided
from ups.evaluation.forecaster import Forecaster
from ups.evaluation.rollout import decoded_rollout
from ups.evaluation.score import Forecast, Scores, Setting, score
from ups.evaluation.surrogate import Surrogate
from ups.models.codec import ProblemCodec
from ups.problems import Field, Problem
from ups.runtime.randomness import torch_generator
from ups.runtime.ranks import device_name

log = logging.getLogger(__name__)

_ROWS_AT_ONCE = 256
_TURNED = 4  # trajectories that equivariance is measured on


@dataclass(frozen=True, eq=False)
class Trial:
    """One problem's trajectories as they are scored, on the models' device.

    Attributes:
        truth: [n, 1 + t, *grid, C] physical; the grid is `stride` times as fine as the models'.
        known: [C] bool, which fields the first frame holds; None: all.
        scalars: [S] conditioning.
        time_step: between frames.
        parameters: of the equation.
        mean: [*grid, C] mean output of the train split, of a map; None of an evolution.
    """

    setting: Setting
    truth: Tensor
    known: Tensor | None
    scalars: Tensor
    time_step: float
    parameters: dict[str, float]
    mean: Tensor | None
    stride: int

    @property
    def steps(self) -> int:
        """Applications of the operator."""
        return self.truth.shape[1] - 1


def make_trial(
    name: str,
    dataset: Dataset,
    split: str,
    configuration: Configuration,
    device: torch.device,
    *,
    mean: Tensor | None,
    stride: int = 1,
) -> Trial:
    """A split of a dataset, ready to be scored.

    Args:
        name: of the problem in the configuration.
        mean: [*grid, C] as from `train_means`, on the models' grid.
        stride: points per axis of the dataset for one of the models.
    """
    truth = torch.from_numpy(dataset.split(split)).to(device)
    known = dataset.known[0]
    periodic = dataset.boundary == "periodic"
    return Trial(
        setting=Setting(
            problem=name,
            dataset=dataset.title,
            version=dataset.version,
            split=split,
            fields=_declared(dataset.problem, dataset.names),
            boundary=dataset.boundary,
            is_map=dataset.problem.is_map,
            seed=configuration.seed,
            resolution=dataset.grid,
            frames=truth.shape[1],
            device=device_name(device),
            threads=configuration.execution.threads,
        ),
        truth=truth,
        known=None if known.all() else torch.from_numpy(known).to(device),
        scalars=torch.tensor(dataset.scalars, dtype=torch.float32, device=device),
        time_step=dataset.time_step,
        parameters=dataset.parameters,
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


def score_all(
    surrogate: Surrogate, trial: Trial, *, batch_size: int, seed: int, equivariance: bool = True
) -> list[Scores]:
    """Score the trivial forecasts and every forecaster of the problem.

    Of an evolution, persistence and the spatial mean; of a map, the train split's mean, for its first frame does
    not hold what is asked for.

    Args:
        batch_size: states advanced together, members counted.
        seed: of the ensembles' noise.
        equivariance: measure how well the operator obeys the symmetries.
    """
    setting = trial.setting
    if trial.mean is None:
        trivial = {"persistence": persistence(trial.steps), "spatial_mean": spatial_mean(trial.steps)}
    else:
        trivial = {"train_mean": train_mean(trial.mean)}
    results = [
        score(name, forecast, trial.truth, setting, members=1, calls_per_step=0, batch=batch_size)
        for name, forecast in trivial.items()
    ]
    codec = surrogate.codec.of(setting.problem)
    # As many for a single forecast as for an ensemble: so the operator's forecasts are found again by all rows.
    batch = max(1, batch_size // surrogate.members)
    for forecaster in surrogate.forecasters(setting.problem):
        result = score(
            forecaster.name,
            network_forecast(codec, forecaster, trial, seed=seed),
            trial.truth,
            setting,
            members=forecaster.members,
            calls_per_step=forecaster.calls_per_step,
            calls_per_member=forecaster.calls_per_member,
            batch=batch,
        )
        result.seconds += forecaster.owed()
        if forecaster.name == "operator" and equivariance:
            result.equivariance = _equivariance(forecaster, codec, trial, seed=seed)
            forecaster.owed()  # no row's time
        results.append(result)
        log.info(
            "evaluate %s %-20s trajectory relative L2 %.4f  %.1f s",
            setting.problem, forecaster.name, result.get("trajectory").mean().item(), result.seconds,
        )  # fmt: skip
    return results


def _equivariance(
    forecaster: Forecaster, codec: ProblemCodec, trial: Trial, *, seed: int
) -> dict[str, float]:
    initial = strided(trial.truth[:_TURNED, 0], trial.stride, len(codec.shape.grid))
    errors = equivariance_errors(
        forecaster,
        codec,
        initial,
        trial.known,
        trial.scalars,
        trial.steps,
        time_step=trial.time_step,
        parameters=trial.parameters,
        generator=torch_generator(seed, "equivariance", codec.problem, device=initial.device),
    )
    return {str(symmetry): error for symmetry, error in errors.items()}


def network_forecast(codec: ProblemCodec, forecaster: Forecaster, trial: Trial, *, seed: int) -> Forecast:
    """A forecaster as a function of physical first frames; its noise is a function of seed, problem and name.

    The encoder sees the models' grid; the forecast is decoded on the trial's.
    """
    grid = codec.shape.grid
    device = trial.truth.device
    generator = torch_generator(seed, "ensemble", codec.problem, forecaster.name, device=device)
    periodic = codec.shape.boundary == "periodic"
    coordinates = None
    if trial.stride > 1:
        coordinates = finer_coordinates(grid, trial.stride, periodic=periodic).to(device)

    def forecast(initial: Tensor) -> Tensor:
        return decoded_rollout(
            forecaster,
            codec,
            strided(initial, trial.stride, len(grid)),
            trial.known,
            trial.scalars,
            trial.steps,
            time_step=trial.time_step,
            parameters=trial.parameters,
            coordinates=coordinates,
            generator=generator,
        )

    return forecast


def _declared(problem: Problem, names: tuple[str, ...]) -> tuple[Field, ...]:
    """What is declared of fields, stored or conserved ones, by their names."""
    declared = {field.name: field for field in (*problem.fields, *problem.conserved_fields)}
    return tuple(declared[name] for name in names)
