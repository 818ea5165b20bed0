"""Metrics of forecasts against truth, per trajectory and frame, so that means, medians and spreads come later.

Shapes: truth, prediction and error = prediction - truth [n, t, x, C], without the given first frame; members
[n, M, t, x, C]; all in physical units. The grid is flattened; `grid` says its shape where the metric needs it. Formulas
of PDEBench are those of its `metrics.py` (Takamoto et al. 2022, appendix B), with frames and samples counted as it does.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ups.evaluation.sizes import sizes
from ups.problems import Field

BANDS = {"low": (0, 4), "mid": (4, 12), "high": (12, None)}
"""PDEBench's wavenumber bands, half-open: 0-3, 4-11, 12 and up."""
LEVELS = (0.5, 0.9, 0.95)
"""Of the central intervals whose coverage is measured."""
VALID_ERROR, LEAST_CORRELATION = 0.2, 0.8
"""A forecast is valid while its relative L2 is at most so large, and follows the truth while it correlates so well."""
_RESAMPLES = 10_000
_LEAST_VARIANCE = 1e-7


def rmse(error: Tensor) -> Tensor:
    """Root mean square error of each frame, [n, t, C]. PDEBench's RMSE is its mean over samples, frames and channels."""
    return error.square().mean(dim=2).sqrt()


def pdebench_nrmse(prediction: Tensor, truth: Tensor) -> Tensor:
    """Root mean square error of each frame over the frame's own root mean square, [n, t, C].

    PDEBench's nRMSE is its mean over samples, frames and channels.
    """
    error = (prediction - truth).square().mean(dim=2).sqrt()
    return error / truth.square().mean(dim=2).sqrt()


def conserved_error(error: Tensor) -> Tensor:
    """|mean_x error| of each frame, [n, t, C]: what is wrong in the total.

    PDEBench's cRMSE is its root mean square over samples, then the mean over frames and channels.
    """
    return error.mean(dim=2).abs()


def max_error(error: Tensor) -> Tensor:
    """max_x |error| of each frame, [n, t, C]. PDEBench's is the largest of all samples, then the mean over the rest."""
    return error.abs().amax(dim=2)


def boundary_rmse(error: Tensor, grid: tuple[int, ...]) -> Tensor:
    """Root mean square error over the outermost points of the grid, [n, t, C].

    PDEBench's bRMSE is its mean: of one axis sqrt((e_0^2 + e_N-1^2) / 2), of two the squares of the four edges over
    2 nx + 2 ny, corners counted twice.
    """
    field = error.unflatten(2, grid)
    faces = [
        field.select(axis, place).flatten(2, -2) if len(grid) > 1 else field.select(axis, place)[:, :, None]
        for axis in range(2, 2 + len(grid))
        for place in (0, -1)
    ]
    return rmse(torch.cat(faces, dim=2))


def vrmse(error: Tensor, truth: Tensor) -> Tensor:
    """Root of mean_x error^2 / (var_x truth + 1e-7 mean_x truth^2), [n, t, C]: 1 is the error of the truth's own mean.

    Of The Well (Ohana et al. 2024), which adds 1e-7 in whatever units the field has, and takes the variance over one point
    less than there are.
    """
    least = _LEAST_VARIANCE * truth.square().mean(dim=2)
    return (error.square().mean(dim=2) / (truth.var(dim=2, correction=0) + least)).sqrt()


def correlation(prediction: Tensor, truth: Tensor) -> Tensor:
    """Pearson correlation over the points of each frame, [n, t, C].

    0 where the prediction is the same at all points, 1 where the truth is: then there is nothing to follow.
    """
    ours, theirs = (values - values.mean(dim=2, keepdim=True) for values in (prediction, truth))
    size = ours.square().sum(dim=2).sqrt() * theirs.square().sum(dim=2).sqrt()
    follows = (ours * theirs).sum(dim=2) / size.clamp_min(torch.finfo(size.dtype).tiny)
    return torch.where(theirs.square().sum(dim=2) > 0, follows, torch.ones_like(follows))


def time_until(failed: Tensor, times: Tensor) -> Tensor:
    """The time of the last frame before the first that failed, [n]: 0 where already the first did.

    failed [n, t] bool, times [t] of the forecast frames. Rejected: the time of the first that failed, in which a forecast
    that fails in the last frame equals one that never does.
    """
    held = torch.where(failed.any(dim=1), failed.int().argmax(dim=1), failed.shape[1])
    return torch.cat([times.new_zeros(1), times])[held]


def mass_drift(prediction: Tensor, initial: Tensor, fields: Sequence[Field]) -> Tensor:
    """|mean_x u(t) - mean_x u(0)| / rms_x u(0) of each frame, [n, t, C]; of a gas at rest see `ups.evaluation.sizes`.

    prediction [n, t, x, C], initial [n, x, C], all of the conserved fields, on a periodic domain: the mean of their true
    solution is constant in time.
    """
    drift = (prediction.mean(dim=2) - initial.mean(dim=1, keepdim=True)).abs()
    return drift / sizes(initial, fields)[:, None]


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


def spectral_rmse(square_error: Tensor, points: int) -> dict[str, Tensor]:
    """PDEBench's fRMSE per band: sqrt of the mean over samples, over points, then the mean over k, [t, C].

    square_error: `power` of prediction - truth; unit domain length. PDEBench's is the mean over frames and channels. A
    band that the grid is too coarse for is left out.
    """
    per_bin = square_error.mean(dim=0).sqrt() / points
    return {
        name: per_bin[:, low:high].mean(dim=1)
        for name, (low, high) in BANDS.items()
        if per_bin.shape[1] > low
    }


def mean_over_frames(values: Tensor, initial_steps: int, dim: int) -> Tensor:
    """The mean over frames as PDEBench takes it, of errors of the forecast frames: the second, the third, ...

    initial_steps: how many frames do not count. 1: the given one. 0: none, and the given one counts, with its error of
    zero, as in the numbers of the paper (PDEBench leaves out initial frames since October 2024). More: those of the
    forecast are left out that PDEBench gives to its models.
    """
    if initial_steps == 0:
        return values.sum(dim=dim) / (values.shape[dim] + 1)
    return values.narrow(dim, initial_steps - 1, values.shape[dim] - initial_steps + 1).mean(dim=dim)


def crps(members: Tensor, truth: Tensor) -> Tensor:
    """Continuous ranked probability score, fair estimator, mean over the points of each frame, [n, t, C].

    mean_m |x_m - y| - 1 / (2 M (M - 1)) sum_ij |x_i - x_j|  (Ferro 2014, eq. 8): unbiased in M, so an
    ensemble is neither rewarded nor punished for its size. The double sum is taken over sorted members.
    One member is a forecast without doubt, whose CRPS is its mean absolute error.
    """
    count = members.shape[1]
    skill = (members - truth.unsqueeze(1)).abs().mean(dim=1)
    if count == 1:
        return skill.mean(dim=2)
    ordered = members.sort(dim=1).values
    weights = torch.arange(1 - count, count, 2, dtype=members.dtype, device=members.device)
    spread = torch.einsum("m,nmtxc->ntxc", weights, ordered) / (count * (count - 1))
    return (skill - spread).mean(dim=2)


def rank_counts(members: Tensor, truth: Tensor) -> Tensor:
    """How often the truth of each frame has each rank among the members, over points and fields, [n, t, M + 1] int64."""
    ranks = (members < truth.unsqueeze(1)).sum(dim=1).flatten(2)
    counts = ranks.new_zeros(*ranks.shape[:2], members.shape[1] + 1)
    return counts.scatter_add_(2, ranks, torch.ones_like(ranks))


def coverage(ranks: Tensor, level: float) -> Tensor:
    """Part of the truth inside the central `level` interval of the ensemble, [...], of rank counts [..., M + 1].

    By ranks: the truth of a calibrated ensemble of M members is equally likely in each of the M + 1 gaps
    between them, whatever the distribution. A gap that lies partly inside the central interval of ranks
    counts by that part (the expectation of the randomised probability integral transform; Czado et al.
    2009), so a calibrated ensemble of any size scores `level` exactly. The price: an ensemble that always
    misses on the outside still scores the inside part of the outermost gap, for M = 16 0.15 at 0.90, and 0.58 at 0.95.

    Rejected: interpolated quantiles of the members (a calibrated ensemble of 16 would score 0.79) and a
    normal interval (fronts make the forecast distribution bimodal).
    """
    count = ranks.shape[-1]
    gaps = torch.arange(count, device=ranks.device, dtype=torch.float64)
    tail = (1 - level) / 2
    lower = (gaps / count).clamp(min=tail)
    upper = ((gaps + 1) / count).clamp(max=1 - tail)
    inside = (upper - lower).clamp(min=0) * count
    return (ranks * inside).sum(dim=-1) / ranks.sum(dim=-1)


def quantile_coverage(ranks: Tensor) -> Tensor:
    """Part of the truth below each member in ascending order, [M], of rank counts [M + 1]: k / (M + 1) if calibrated.

    The k-th of M members is the forecast's quantile k / (M + 1), exactly and whatever the distribution.
    """
    return ranks.cumsum(dim=0)[:-1].double() / ranks.sum()


def expected_calibration_error(ranks: Tensor) -> float:
    """Mean over k of |part of the truth below the k-th member - k / (M + 1)|, of rank counts [M + 1].

    The expected calibration error of quantile coverage (Kuleshov et al. 2018, equation 9, with distances in place of their
    squares): the mean distance of the reliability diagram from its diagonal.
    """
    count = len(ranks)
    nominal = torch.arange(1, count, dtype=torch.float64, device=ranks.device) / count
    return (quantile_coverage(ranks) - nominal).abs().mean().item()


def spread_over_skill(variance: Tensor, square_error: Tensor, members: int) -> Tensor:
    """sqrt((M + 1) / M mean variance / mean square error) (Fortin et al. 2014, eq. 15), [...]: means over trajectories,
    the first axis, then over fields, the last. variance (unbiased) and square_error [n, ..., C].
    """
    return ((members + 1) / members * variance.mean(dim=0) / square_error.mean(dim=0)).sqrt().mean(dim=-1)


def spread_skill(variance: Tensor, square_error: Tensor, members: int) -> tuple[float, float, float]:
    """Spread of an ensemble over the error of its mean, 1 for a calibrated one of any size, and its 95 % interval.

    `spread_over_skill` with the interval of `paired_ratio`; variance and square_error [n, C], both relative to the square
    norm of the truth.

    Squares weigh the worst trajectories most: of 512 one held 61 % of all square error (LOG.md, 2026-11-28), which the interval
    shows and `spread_skill_median` does not feel.
    """
    value = spread_over_skill(variance.double(), square_error.double(), members).item()
    pairs = torch.stack([(members + 1) / members * variance, square_error]).double().cpu()
    resampled = _resampled_means(pairs.movedim(2, 1).flatten(0, 1)).unflatten(0, (2, -1))
    return _with_interval(value, (resampled[0] / resampled[1]).sqrt().mean(dim=0), len(variance))


def spread_skill_median(variance: Tensor, square_error: Tensor, members: int) -> float:
    """The same ratio of each trajectory, median over them, then the mean over fields: how a typical ensemble is."""
    ratio = (members + 1) / members * variance / square_error
    return ratio.sqrt().double().quantile(0.5, dim=0).mean().item()


def paired_ratio(values: Tensor, reference: Tensor) -> tuple[float, float, float]:
    """Mean of one quantity over that of another of the same trajectories [n]: the ratio and its 95 % interval.

    The interval is the paired bootstrap's, by percentiles (Efron and Tibshirani 1993, section 13.3): trajectories are
    drawn with replacement, for both alike. Better than the reference is what lies below 1 with its whole interval.
    """
    return paired_ratios(values[None], reference[None])[0]


def paired_ratios(values: Tensor, reference: Tensor) -> list[tuple[float, float, float]]:
    """`paired_ratio` of several quantities [K, n], each with its own reference [K, n], with the same draws for all."""
    pairs = torch.stack([values, reference]).double().cpu()
    ratios = pairs[0].mean(dim=1) / pairs[1].mean(dim=1)
    means = _resampled_means(pairs.flatten(0, 1)).unflatten(0, (2, -1))
    resampled = means[0] / means[1]
    return [
        _with_interval(ratio, draws, pairs.shape[2])
        for ratio, draws in zip(ratios.tolist(), resampled, strict=True)
    ]


def _resampled_means(values: Tensor) -> Tensor:
    """Means of several quantities [K, n] over trajectories drawn with replacement, for all alike: [K, resamples].

    As a product with how often each trajectory was drawn: as fast for hundreds of quantities as for one.
    """
    generator, count = torch.Generator().manual_seed(0), values.shape[1]
    parts = []
    for _ in range(10):
        drawn = torch.randint(count, (_RESAMPLES // 10, count), generator=generator)
        times = values.new_zeros(drawn.shape).scatter_add_(1, drawn, values.new_ones(1).expand_as(drawn))
        parts.append(values @ times.T / count)
    return torch.cat(parts, dim=1)


def _with_interval(value: float, resampled: Tensor, count: int) -> tuple[float, float, float]:
    """A value and the 95 % interval of its resampled ones, NaN where there is none."""
    if not math.isfinite(value) or count < 2:
        return value, math.nan, math.nan
    low, high = resampled.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return value, low, high


def standard_error(values: Tensor) -> float:
    """Standard error of the mean over trajectories."""
    return (values.double().std() / math.sqrt(len(values))).item() if len(values) > 1 else math.nan


@dataclass(frozen=True)
class Forecasts:
    """Forecasts of some trajectories beside their truth: the scored fields.

    Attributes:
        members: [n, M, t, x, C].
        truth: [n, t, x, C].
        grid: shape of x.
        times: [t] since the given first frame.
    """

    members: Tensor
    truth: Tensor
    grid: tuple[int, ...]
    times: Tensor

    @cached_property
    def prediction(self) -> Tensor:
        """The mean of the members, [n, t, x, C]."""
        return self.members.mean(dim=1)

    @cached_property
    def error(self) -> Tensor:
        """Of that mean, [n, t, x, C]."""
        return self.prediction - self.truth


def _mean(values: Tensor) -> Tensor:
    return values.mean(dim=0)


def _root_mean_square(values: Tensor) -> Tensor:
    return values.square().mean(dim=0).sqrt()


def _largest(values: Tensor) -> Tensor:
    return values.amax(dim=0)


class PerTrajectory(NamedTuple):
    """A metric of each trajectory.

    Attributes:
        formula: forecasts to a number of each trajectory, [n]; of each of its fields, [n, C]; or of each of its frames
            too, [n, t, C]: then the table also has it by lead time.
        unit: "1", "time", or that of the field. Numbers with the field's unit are kept by field; all others are averaged over
            fields.
        over: trajectories, the first axis. Only a mean has a standard error and is compared with the operator's.
        pdebench: its frames are counted as PDEBench counts them; see `mean_over_frames`.
        evolution: a map has no such number.
    """

    formula: Callable[[Forecasts], Tensor]
    unit: Literal["1", "time", "field"] = "1"
    over: Callable[[Tensor], Tensor] = _mean
    pdebench: bool = False
    evolution: bool = False

    @property
    def is_mean(self) -> bool:
        """Whether it is a mean over trajectories."""
        return self.over is _mean


def _valid_time(forecasts: Forecasts) -> Tensor:
    error = pdebench_nrmse(forecasts.prediction, forecasts.truth).mean(dim=-1)
    return time_until(~(error <= VALID_ERROR), forecasts.times)  # what is not finite failed


def _correlation_time(forecasts: Forecasts) -> Tensor:
    follows = correlation(forecasts.prediction, forecasts.truth).mean(dim=-1)
    return time_until(~(follows >= LEAST_CORRELATION), forecasts.times)


PER_TRAJECTORY: dict[str, PerTrajectory] = {
    "pdebench_nrmse": PerTrajectory(lambda f: pdebench_nrmse(f.prediction, f.truth), pdebench=True),
    "rmse": PerTrajectory(lambda f: rmse(f.error), "field", pdebench=True),
    "conserved_rmse": PerTrajectory(
        lambda f: conserved_error(f.error), "field", over=_root_mean_square, pdebench=True
    ),
    "max_error": PerTrajectory(lambda f: max_error(f.error), "field", over=_largest, pdebench=True),
    "boundary_rmse": PerTrajectory(lambda f: boundary_rmse(f.error, f.grid), "field", pdebench=True),
    "vrmse": PerTrajectory(lambda f: vrmse(f.error, f.truth)),
    "correlation": PerTrajectory(lambda f: correlation(f.prediction, f.truth)),
    "valid_time": PerTrajectory(_valid_time, "time", evolution=True),
    "correlation_time": PerTrajectory(_correlation_time, "time", evolution=True),
    "crps": PerTrajectory(lambda f: crps(f.members, f.truth), "field"),
}
"""By their names in the records; how they are shown is in `ups.metric_labels`."""
