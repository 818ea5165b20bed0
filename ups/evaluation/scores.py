"""From forecasts to scores: what is kept of one model, per trajectory and scored field. Given fields are never scored."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ups.evaluation import metrics
from ups.losses.relative import relative_l2_per_field
from ups.problems import Boundary, Field

Predictor = Callable[[Tensor], Tensor]
"""Physical first frames [n, *grid, C] to members [n, M, t, x, C]."""


@dataclass(frozen=True)
class Setting:
    """What is scored, and what every record of it repeats.

    Attributes:
        problem: its name in the configuration.
        dataset: what people call it.
        version: which data were scored.
        fields: of the state, in the order of the channels.
        boundary: of the domain.
        is_map: one application of the operator, from given fields to the others.
        seed: of the run (weights and batches); ensembles have their own, fixed by the configuration.
        resolution: of the grid that was scored on.
        frames: of a trajectory, the given first one included.
        time_step: between them; 1 for a map.
        parameters: of the equation.
        initial_steps: frames that PDEBench's metrics leave out, see `metrics.mean_over_frames`.
    """

    problem: str
    dataset: str
    version: str
    split: str
    fields: tuple[Field, ...]
    boundary: Boundary
    is_map: bool
    seed: int
    resolution: tuple[int, ...]
    frames: int
    device: str
    threads: int
    time_step: float = 1.0
    parameters: dict[str, float] = field(default_factory=dict)
    initial_steps: int = 1

    @property
    def scored(self) -> list[int]:
        """Channels that are not given."""
        return [channel for channel, declared in enumerate(self.fields) if not declared.given]

    @property
    def conserved(self) -> list[int]:
        """Channels whose mean the equation keeps: conserved fields of an evolution without walls."""
        if self.is_map or self.boundary != "periodic":
            return []
        return [channel for channel, declared in enumerate(self.fields) if declared.conserved]


@dataclass
class Scores:
    """Everything kept of one model's forecasts, per trajectory and scored field.

    Attributes:
        per_field: relative L2 over all frames, [n, C].
        trajectory: its mean over fields, [n].
        drift: of the mass, [n, t]; empty where nothing is conserved.
        spectral: squared spectral error [n, t, bins, C].
        spectrum: energy of the prediction at the last frame by wavenumber, [n, bins, C].
        variance, square_error: of the ensemble and of its mean, over the square norm of the truth, [n, t, C], for
            ensembles.
        ranks: of the truth among the members, counted over points and fields, [n, t, M + 1], for ensembles.
        per_trajectory: of each metric of `metrics.PER_TRAJECTORY`, [n], [n, C] or [n, t, C].
        equivariance: relative L2 between forecasts with and without a symmetry, by symmetry, where measured.
    """

    name: str
    members: int
    calls_per_step: int
    calls_per_member: int = 0
    seconds: float = 0.0
    batch: int = 0
    per_field: list[Tensor] = field(default_factory=list)
    trajectory: list[Tensor] = field(default_factory=list)
    drift: list[Tensor] = field(default_factory=list)
    spectral: list[Tensor] = field(default_factory=list)
    spectrum: list[Tensor] = field(default_factory=list)
    variance: list[Tensor] = field(default_factory=list)
    square_error: list[Tensor] = field(default_factory=list)
    ranks: list[Tensor] = field(default_factory=list)
    per_trajectory: dict[str, list[Tensor]] = field(default_factory=dict)
    equivariance: dict[str, float] = field(default_factory=dict)

    def get(self, name: str) -> Tensor:
        """All trajectories of one kept quantity."""
        return torch.cat(self.per_trajectory[name] if name in self.per_trajectory else getattr(self, name))


def score(
    name: str,
    predict: Predictor,
    truth: Tensor,
    setting: Setting,
    *,
    members: int,
    calls_per_step: int,
    batch: int,
    calls_per_member: int = 0,
) -> Scores:
    """Score a model on trajectories [n, 1 + t, *grid, C], `batch` of them at a time.

    Point metrics score the ensemble mean. Time counts the forecast only: encoding, steps and decoding.
    """
    scores = Scores(name, members, calls_per_step, calls_per_member, batch=batch * members)
    grid = tuple(truth.shape[2:-1])
    scored, conserved = setting.scored, setting.conserved
    times = setting.time_step * torch.arange(1, truth.shape[1], device=truth.device)
    for part in truth.split(batch):
        started = time.perf_counter()
        ensemble = predict(part[:, 0])
        if ensemble.is_cuda:
            torch.cuda.synchronize()
        scores.seconds += time.perf_counter() - started
        if conserved:
            drift = metrics.mass_drift(
                ensemble[..., conserved].mean(dim=1),
                part[:, 0].flatten(1, -2)[..., conserved],
                [setting.fields[channel] for channel in conserved],
            )
            scores.drift.append(drift.amax(dim=-1).cpu())
        target = part[:, 1:].flatten(2, -2)[..., scored]
        forecasts = metrics.Forecasts(ensemble[..., scored], target, grid, times)
        per_field = relative_l2_per_field(forecasts.prediction, target).cpu()
        scores.per_field.append(per_field)
        scores.trajectory.append(per_field.mean(dim=-1))
        scores.spectral.append(metrics.power(forecasts.error, grid).cpu())
        scores.spectrum.append(metrics.power(forecasts.members[:, 0, -1:], grid)[:, 0].cpu())
        for name_of_metric, metric in metrics.PER_TRAJECTORY.items():
            if not (metric.evolution and setting.is_map):
                values = metric.formula(forecasts).cpu()
                scores.per_trajectory.setdefault(name_of_metric, []).append(values)
        if members > 1:
            norm = target.square().mean(dim=(1, 2))[:, None]
            scores.variance.append((forecasts.members.var(dim=1).mean(dim=2) / norm).cpu())
            scores.square_error.append((forecasts.error.square().mean(dim=2) / norm).cpu())
            scores.ranks.append(metrics.rank_counts(forecasts.members, target).cpu())
    return scores
