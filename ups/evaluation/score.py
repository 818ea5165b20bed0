"""From forecasts to records: one dictionary per model and metric."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ups.evaluation import metrics
from ups.losses.relative import relative_l2

Forecast = Callable[[Tensor], Tensor]
"""Physical first frames [n, *grid, C] to members [n, M, t, x, C]."""


@dataclass(frozen=True)
class Setting:
    """What every record of an evaluation repeats.

    Attributes:
        seed: of the run (weights and batches); ensembles have their own, fixed by the configuration.
        version: which data were scored.
    """

    dataset: str
    version: str
    split: str
    seed: int
    resolution: tuple[int, ...]
    frames: int
    device: str
    threads: int


@dataclass
class Scores:
    """Everything kept of one model's forecasts, per trajectory.

    Attributes:
        trajectory: relative L2 over all frames, [n].
        frame: relative L2 by frame, mean over channels, [n, t] (PDEBench's per-frame nRMSE).
        spectral: squared spectral error [n, t, bins, C].
        spectrum: energy of the prediction at the last frame by wavenumber, [n, bins].
        coverage: [n, t], for ensembles.
        ranks: [M + 1], for ensembles.
    """

    name: str
    members: int
    calls_per_step: int
    seconds: float = 0.0
    batch: int = 0
    trajectory: list[Tensor] = field(default_factory=list)
    frame: list[Tensor] = field(default_factory=list)
    drift: list[Tensor] = field(default_factory=list)
    spectral: list[Tensor] = field(default_factory=list)
    spectrum: list[Tensor] = field(default_factory=list)
    crps: list[Tensor] = field(default_factory=list)
    coverage: list[Tensor] = field(default_factory=list)
    ranks: list[Tensor] = field(default_factory=list)

    def get(self, name: str) -> Tensor:
        """All trajectories of one kept quantity."""
        return torch.cat(getattr(self, name))


def score(
    name: str,
    forecast: Forecast,
    truth: Tensor,
    *,
    members: int,
    calls_per_step: int,
    batch: int,
) -> Scores:
    """Score a model on trajectories [n, 1 + t, *grid, C], `batch` of them at a time.

    Point metrics score the ensemble mean. Time counts the forecast only: encoding, steps and decoding.
    """
    scores = Scores(name, members, calls_per_step, batch=batch * members)
    grid = tuple(truth.shape[2:-1])
    for part in truth.split(batch):
        started = time.perf_counter()
        ensemble = forecast(part[:, 0])
        if ensemble.is_cuda:
            torch.cuda.synchronize()
        scores.seconds += time.perf_counter() - started
        target = part[:, 1:].flatten(2, -2)
        prediction = ensemble.mean(dim=1)
        scores.trajectory.append(relative_l2(prediction, target).cpu())
        scores.frame.append(metrics.pdebench_nrmse(prediction, target).mean(dim=-1).cpu())
        scores.drift.append(metrics.mass_drift(prediction, part[:, 0].flatten(1, -2)).cpu())
        scores.spectral.append(metrics.spectral_square_error(prediction, target, grid).cpu())
        energy = torch.fft.rfft(ensemble[:, 0, -1], dim=1).abs().square().sum(dim=-1)
        scores.spectrum.append(energy.cpu())
        if members > 1:
            scores.crps.append(metrics.crps(ensemble, target).cpu())
            scores.coverage.append(metrics.coverage(ensemble, target, 0.9).cpu())
            scores.ranks.append(metrics.rank_counts(ensemble, target)[None].cpu())
    return scores


def records(scores: Scores, setting: Setting) -> list[dict[str, Any]]:
    """Records {model, dataset, split, metric, value, unit, ...} of one model; null where not finite."""
    trajectory, frame = scores.get("trajectory"), scores.get("frame")
    points = math.prod(setting.resolution)
    values: list[tuple[str, float, str, float]] = [
        ("trajectory_relative_l2", trajectory.mean().item(), "1", metrics.standard_error(trajectory)),
        ("trajectory_relative_l2_median", trajectory.median().item(), "1", math.nan),
        ("pdebench_nrmse", frame.mean().item(), "1", metrics.standard_error(frame.mean(dim=1))),
        ("final_relative_l2", frame[:, -1].mean().item(), "1", metrics.standard_error(frame[:, -1])),
        ("mass_drift", scores.get("drift").mean().item(), "1", metrics.standard_error(scores.get("drift"))),
    ]
    for band, value in metrics.spectral_rmse(scores.get("spectral"), points).items():
        values.append((f"spectral_rmse_{band}", value, "field", math.nan))
    if scores.members > 1:
        crps, covered = scores.get("crps"), scores.get("coverage").mean(dim=1)
        values.append(("crps", crps.mean().item(), "field", metrics.standard_error(crps)))
        values.append(("coverage_90", covered.mean().item(), "1", metrics.standard_error(covered)))
    count = len(trajectory)
    values.append(("seconds_per_trajectory", scores.seconds / count, "s", math.nan))
    return [
        {
            "model": scores.name,
            "dataset": setting.dataset,
            "data_version": setting.version,
            "split": setting.split,
            "metric": metric,
            "value": _finite(value),
            "standard_error": _finite(error),
            "unit": unit,
            "n_trajectories": count,
            "frames": setting.frames,
            "frames_skipped": 1,
            "resolution": list(setting.resolution),
            "seed": setting.seed,
            "n_members": scores.members,
            "calls_per_step": scores.calls_per_step,
            "device": setting.device,
            "threads": setting.threads,
            "batch": scores.batch,
        }
        for metric, value, unit, error in values
    ]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
