"""Metrics of forecasts against truth, per trajectory, so that means, medians and spreads come later.

Shapes: truth [n, t, x, C] without the given first frame; members [n, M, t, x, C]; all in physical units.
The grid is flattened; `grid` says its shape where the metric needs it. Formulas of PDEBench are those of its
`metrics.py` (Takamoto et al. 2022, appendix B), with frames and samples counted as it does.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

BANDS = {"low": (0, 4), "mid": (4, 12), "high": (12, None)}
"""PDEBench's wavenumber bands, half-open: 0-3, 4-11, 12 and up."""
_RESAMPLES = 10_000


def pdebench_nrmse(prediction: Tensor, truth: Tensor) -> Tensor:
    """Root mean square error of each frame over the frame's own root mean square, [n, t, C].

    PDEBench's nRMSE is its mean over samples, frames and channels.
    """
    error = (prediction - truth).square().mean(dim=2).sqrt()
    return error / truth.square().mean(dim=2).sqrt()


def mass_drift(prediction: Tensor, initial: Tensor) -> Tensor:
    """max over t of |mean_x u(t) - mean_x u(0)| / rms_x u(0), worst channel, [n].

    prediction [n, t, x, C], initial [n, x, C], conserved fields on a periodic domain: the mean of their true
    solution is constant in time.
    """
    drift = (prediction.mean(dim=2) - initial.mean(dim=1, keepdim=True)).abs().amax(dim=1)
    return (drift / initial.square().mean(dim=1).sqrt()).amax(dim=-1)


def power(values: Tensor, grid: tuple[int, ...]) -> Tensor:
    """Squared Fourier coefficients by wavenumber, summed per bin, [n, t, bins, C]; values [n, t, x, C].

    One axis: |rfft|^2, a bin per wavenumber. More: |fftn|^2 over the wavenumbers from 0 to half of each axis,
    summed into radial bins floor(|k|); what lies beyond the shortest axis is left out. That is PDEBench's way: it
    sees one quadrant of the plane (of a real field, half of all coefficients are independent, so it leaves out
    one of two), hence only comparisons with itself mean anything.
    """
    if len(grid) == 1:
        return torch.fft.rfft(values, dim=2).abs().square()
    axes = tuple(range(2, 2 + len(grid)))
    coefficients = torch.fft.fftn(values.unflatten(2, grid), dim=axes)
    wavenumbers = [torch.arange(points // 2, device=values.device) for points in grid]
    radius = sum(k.square() for k in torch.meshgrid(*wavenumbers, indexing="ij"))
    assert isinstance(radius, Tensor)
    bins = radius.double().sqrt().floor().long().flatten()
    quadrant = coefficients[(slice(None), slice(None), *(slice(points // 2) for points in grid))]
    squares = quadrant.abs().square().flatten(2, -2)
    count = min(points // 2 for points in grid)
    inside = bins < count
    summed = squares.new_zeros(*values.shape[:2], count, values.shape[-1])
    return summed.index_add(2, bins[inside], squares[:, :, inside])


def spectral_rmse(square_error: Tensor, points: int) -> dict[str, float]:
    """PDEBench's fRMSE per band: sqrt of the mean over samples, over points, then means over k, t and C.

    square_error: `power` of prediction - truth; unit domain length. A band that the grid is too coarse for is
    left out.
    """
    per_bin = square_error.mean(dim=0).sqrt() / points
    return {
        name: per_bin[:, low:high].mean().item()
        for name, (low, high) in BANDS.items()
        if per_bin.shape[1] > low
    }


def crps(members: Tensor, truth: Tensor) -> Tensor:
    """Continuous ranked probability score, fair estimator, mean over frames and points, [n, C].

    mean_m |x_m - y| - 1 / (2 M (M - 1)) sum_ij |x_i - x_j|  (Ferro 2014, eq. 8): unbiased in M, so an
    ensemble is neither rewarded nor punished for its size. The double sum is taken over sorted members.
    One member is a forecast without doubt, whose CRPS is its mean absolute error.
    """
    count = members.shape[1]
    skill = (members - truth.unsqueeze(1)).abs().mean(dim=1)
    if count == 1:
        return skill.mean(dim=(1, 2))
    ordered = members.sort(dim=1).values
    weights = torch.arange(1 - count, count, 2, dtype=members.dtype, device=members.device)
    spread = torch.einsum("m,nmtxc->ntxc", weights, ordered) / (count * (count - 1))
    return (skill - spread).mean(dim=(1, 2))


def coverage(members: Tensor, truth: Tensor, level: float) -> Tensor:
    """Part of the truth inside the central `level` interval of the ensemble, [n, t].

    By ranks: the truth of a calibrated ensemble of M members is equally likely in each of the M + 1 gaps
    between them, whatever the distribution. A gap that lies partly inside the central interval of ranks
    counts by that part (the expectation of the randomised probability integral transform; Czado et al.
    2009), so a calibrated ensemble of any size scores `level` exactly. The price: an ensemble that always
    misses on the outside still scores the inside part of the outermost gap, 0.15 for M = 16 and 0.90.

    Rejected: interpolated quantiles of the members (a calibrated ensemble of 16 would score 0.79) and a
    normal interval (fronts make the forecast distribution bimodal).
    """
    count = members.shape[1]
    rank = (members < truth.unsqueeze(1)).sum(dim=1)
    gaps = torch.arange(count + 1, device=members.device, dtype=torch.float64)
    tail = (1 - level) / 2
    lower = (gaps / (count + 1)).clamp(min=tail)
    upper = ((gaps + 1) / (count + 1)).clamp(max=1 - tail)
    inside = ((upper - lower).clamp(min=0) * (count + 1)).float()
    return inside[rank].mean(dim=(2, 3))


def spread_skill(variance: Tensor, square_error: Tensor, members: int) -> tuple[float, float, float]:
    """Spread of an ensemble over the error of its mean, 1 for a calibrated one of any size, and its 95 % interval.

    sqrt((M + 1) / M mean variance / mean square error) (Fortin et al. 2014, eq. 15), means over trajectories, then
    over fields; the interval is as in `paired_ratio`. variance (unbiased) and square_error [n, C], both relative to the
    square norm of the truth.

    Squares weigh the worst trajectories most: of 512 one held 61 % of all square error (LOG.md, 2026-11-28), which the interval
    shows and `spread_skill_median` does not feel.
    """
    pairs = torch.stack([(members + 1) / members * variance, square_error]).double().cpu()
    resampled = _resampled_means(pairs.movedim(2, 1).flatten(0, 1)).unflatten(0, (2, -1))
    value = (pairs[0].mean(dim=0) / pairs[1].mean(dim=0)).sqrt().mean().item()
    return _with_interval(value, (resampled[0] / resampled[1]).sqrt().mean(dim=0), len(variance))


def spread_skill_median(variance: Tensor, square_error: Tensor, members: int) -> float:
    """The same ratio of each trajectory, median over them, then the mean over fields: how a typical ensemble is."""
    ratio = (members + 1) / members * variance / square_error
    return ratio.sqrt().double().quantile(0.5, dim=0).mean().item()


def rank_counts(members: Tensor, truth: Tensor) -> Tensor:
    """How often the truth has each rank among the members, [M + 1] int64."""
    rank = (members < truth.unsqueeze(1)).sum(dim=1)
    return torch.bincount(rank.flatten(), minlength=members.shape[1] + 1)


def paired_ratio(values: Tensor, reference: Tensor) -> tuple[float, float, float]:
    """Mean of one quantity over that of another of the same trajectories [n]: the ratio and its 95 % interval.

    The interval is the paired bootstrap's, by percentiles (Efron and Tibshirani 1993, section 13.3): trajectories are
    drawn with replacement, for both alike. Better than the reference is what lies below 1 with its whole interval.
    """
    pairs = torch.stack([values, reference]).double().cpu()
    means = _resampled_means(pairs)
    return _with_interval((pairs[0].mean() / pairs[1].mean()).item(), means[0] / means[1], len(values))


def _resampled_means(values: Tensor) -> Tensor:
    """Means of several quantities [K, n] over trajectories drawn with replacement, for all alike: [K, resamples]."""
    generator, count = torch.Generator().manual_seed(0), values.shape[1]
    return torch.cat(
        [
            values[:, torch.randint(count, (_RESAMPLES // 10, count), generator=generator)].mean(dim=2)
            for _ in range(10)
        ],
        dim=1,
    )


def _with_interval(value: float, resampled: Tensor, count: int) -> tuple[float, float, float]:
    """A value and the 95 % interval of its resampled ones, NaN where there is none."""
    if not math.isfinite(value) or count < 2:
        return value, math.nan, math.nan
    low, high = resampled.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return value, low, high


def standard_error(values: Tensor) -> float:
    """Standard error of the mean over trajectories."""
    return (values.double().std() / math.sqrt(len(values))).item() if len(values) > 1 else math.nan


class PerTrajectory(NamedTuple):
    """A metric whose value is a mean over trajectories.

    Attributes:
        formula: members [n, M, t, x, C] and truth [n, t, x, C] of the scored fields to a number of each trajectory, [n], or
            of each of its fields, [n, C].
        relative: the number has no unit; else it has the field's.
    """

    formula: Callable[[Tensor, Tensor], Tensor]
    relative: bool = True


PER_TRAJECTORY: dict[str, PerTrajectory] = {
    "crps": PerTrajectory(crps, relative=False),
}
"""By their names in the records; how they are shown is in `ups.metric_labels`."""
