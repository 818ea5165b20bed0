"""Metrics against known answers, PDEBench's formulas written again in numpy, and brute force."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from ups.evaluation import metrics
from ups.losses.relative import relative_l2
from ups.problems import PROBLEMS

N, T, X, C = 6, 5, 64, 2


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sine(wavenumber: int, points: int = X) -> Tensor:
    x = (torch.arange(points, dtype=torch.float64) + 0.5) / points
    return (2 * torch.pi * wavenumber * x).sin().view(1, 1, points, 1)


def forecasts(members: Tensor, truth: Tensor, grid: tuple[int, ...] = (X,)) -> metrics.Forecasts:
    """Frames are a tenth of a time unit apart."""
    times = 0.1 * torch.arange(1, truth.shape[1] + 1, dtype=torch.float64)
    return metrics.Forecasts(members, truth, grid, times)


HORIZON = 0.1 * T
BEST = {"correlation": 1.0, "valid_time": HORIZON, "correlation_time": HORIZON}
"""Of metrics that are not errors."""


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("metric", metrics.PER_TRAJECTORY)
def test_truth_has_no_error(metric, count):
    truth = normal(N, T, X, C)
    kind = metrics.PER_TRAJECTORY[metric]
    values = kind.formula(forecasts(truth[:, None].expand(-1, count, -1, -1, -1), truth))
    assert values.shape in {(N,), (N, C), (N, T, C)}
    torch.testing.assert_close(values, torch.full_like(values, BEST.get(metric, 0.0)), atol=1e-12, rtol=0)
    torch.testing.assert_close(kind.over(values), values[0], atol=1e-12, rtol=0)
    assert relative_l2(truth, truth).abs().max() == 0


@pytest.mark.parametrize("metric", metrics.PER_TRAJECTORY)
def test_the_truth_of_another_trajectory_is_caught_by_every_metric(metric):
    truth = normal(N, T, X, C)
    kind = metrics.PER_TRAJECTORY[metric]
    values = kind.formula(forecasts(truth.roll(1, dims=0)[:, None], truth))
    if metric in BEST:
        assert values.max() < 0.5 * BEST[metric]
    else:
        assert values.mean() > 0.1


def test_half_the_amplitude_is_half_the_error_in_every_relative_metric():
    truth = normal(N, T, X, C)
    assert torch.equal(metrics.pdebench_nrmse(truth / 2, truth), torch.full((N, T, C), 0.5).double())
    torch.testing.assert_close(relative_l2(truth / 2, truth), torch.full((N,), 0.5).double())


def pdebench(prediction: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """What PDEBench's metrics.py computes for one axis, one sample, frame and channel at a time; [n, t, x, c]."""
    n, t, x, c = truth.shape
    rmse, nrmse, conserved, largest, boundary = (np.zeros((n, t, c)) for _ in range(5))
    spectra = np.zeros((n, t, x // 2 + 1, c))
    for i in range(n):
        for j in range(t):
            for k in range(c):
                p, y = prediction[i, j, :, k], truth[i, j, :, k]
                rmse[i, j, k] = np.sqrt(np.mean((p - y) ** 2))
                nrmse[i, j, k] = np.sqrt(np.mean((p - y) ** 2)) / np.sqrt(np.mean(y**2))
                conserved[i, j, k] = np.sum(p) - np.sum(y)
                largest[i, j, k] = max(abs(p - y))
                boundary[i, j, k] = np.sqrt(((p[0] - y[0]) ** 2 + (p[-1] - y[-1]) ** 2) / 2)
                spectra[i, j, :, k] = np.abs(np.fft.rfft(p) - np.fft.rfft(y)) ** 2
    fourier = np.sqrt(spectra.mean(axis=0)) / x
    return {
        "rmse": rmse.mean(),
        "pdebench_nrmse": nrmse.mean(),
        "conserved_rmse": (np.sqrt((conserved**2).mean(axis=0)) / x).mean(),
        "max_error": largest.max(axis=0).mean(),
        "boundary_rmse": boundary.mean(),
        "low": fourier[:, :4].mean(),
        "mid": fourier[:, 4:12].mean(),
        "high": fourier[:, 12:].mean(),
    }


PDEBENCH = ("rmse", "pdebench_nrmse", "conserved_rmse", "max_error", "boundary_rmse")


def ours(prediction: Tensor, truth: Tensor, grid: tuple[int, ...]) -> dict[str, float]:
    """The same by the formulas of the library, averaged over frames and channels."""
    case = forecasts(prediction[:, None], truth, grid)
    found = {name: kind for name, kind in metrics.PER_TRAJECTORY.items() if name in PDEBENCH}
    assert all(kind.pdebench for kind in found.values())
    bands = metrics.spectral_rmse(metrics.power(case.error, grid), math.prod(grid))
    return {name: kind.over(kind.formula(case)).mean().item() for name, kind in found.items()} | {
        name: values.mean().item() for name, values in bands.items()
    }


@pytest.mark.parametrize("points", [X, 63])
def test_pdebench_metrics_are_pdebenchs(points):
    truth, prediction = normal(N, T, points, C, seed=1), normal(N, T, points, C, seed=2)
    expected = pdebench(prediction.numpy(), truth.numpy())
    assert ours(prediction, truth, (points,)) == pytest.approx(expected, rel=1e-12)


def test_the_spectral_error_holds_all_of_the_error():
    truth, prediction = normal(N, T, X, C, seed=1), normal(N, T, X, C, seed=2)
    squares = metrics.power(prediction - truth, (X,))
    twice = torch.full((X // 2 + 1, 1), 2.0).double()  # rfft leaves out the conjugates
    twice[0] = twice[-1] = 1
    torch.testing.assert_close((squares * twice).sum(dim=2) / X, (prediction - truth).square().sum(dim=2))


@pytest.mark.parametrize(
    ("wavenumber", "band"),
    [(0, "low"), (1, "low"), (3, "low"), (4, "mid"), (11, "mid"), (12, "high"), (32, "high")],
)
def test_an_error_of_one_wavenumber_is_in_its_band_alone(wavenumber, band):
    error = 0.1 * (sine(wavenumber) if wavenumber else torch.ones(1, 1, X, 1).double())
    bands = {name: v.item() for name, v in metrics.spectral_rmse(metrics.power(error, (X,)), X).items()}
    amplitude = 0.1 if wavenumber in {0, 32} else 0.05  # of the coefficient, over the number of points
    width = {"low": 4, "mid": 8, "high": 21}[band]
    assert bands.pop(band) == pytest.approx(amplitude / width, rel=1e-6)
    assert max(bands.values()) < 1e-9


def pdebench_2d(prediction: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """cRMSE, bRMSE and fRMSE of two axes as PDEBench's metrics.py has them; radial bins, coefficient by coefficient."""
    n, t, nx, ny, c = truth.shape
    e = prediction - truth
    edges = (e[:, :, [0, -1]] ** 2).sum(axis=(2, 3)) + (e[:, :, :, [0, -1]] ** 2).sum(axis=(2, 3))
    conserved = e.sum(axis=(2, 3))
    count = min(nx // 2, ny // 2)
    spectra = np.zeros((n, t, count, c))
    error = np.abs(np.fft.fftn(prediction, axes=(2, 3)) - np.fft.fftn(truth, axes=(2, 3))) ** 2
    for i in range(nx // 2):
        for j in range(ny // 2):
            radius = math.floor(math.sqrt(i**2 + j**2))
            if radius < count:
                spectra[:, :, radius] += error[:, :, i, j]
    fourier = np.sqrt(spectra.mean(axis=0)) / (nx * ny)
    return {
        "conserved_rmse": (np.sqrt((conserved**2).mean(axis=0)) / (nx * ny)).mean(),
        "boundary_rmse": np.sqrt(edges / (2 * nx + 2 * ny)).mean(),
        "low": fourier[:, :4].mean(),
        "mid": fourier[:, 4:12].mean(),
        "high": fourier[:, 12:].mean(),
    }


@pytest.mark.parametrize("grid", [(32, 32), (26, 40), (41, 27)])
def test_metrics_of_two_axes_are_pdebenchs(grid):
    points = math.prod(grid)
    truth, prediction = normal(2, 2, points, C, seed=1), normal(2, 2, points, C, seed=2)
    shape = (2, 2, *grid, C)
    expected = pdebench_2d(prediction.numpy().reshape(shape), truth.numpy().reshape(shape))
    found = ours(prediction, truth, grid)
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("steps", "expected"), [(0, 15 / 6), (1, 3.0), (3, 4.0), (5, 5.0)])
def test_initial_frames_count_as_pdebench_counts_them(steps, expected):
    """Errors 1, 2, ... 5 of the forecast frames; the given one has none."""
    errors = torch.arange(1.0, 6.0)[None, :, None].expand(N, -1, C)
    torch.testing.assert_close(metrics.mean_over_frames(errors, steps, dim=1), torch.full((N, C), expected))


def test_the_mean_scores_one_in_vrmse_and_does_not_correlate():
    truth = normal(N, T, X, C) + 3.0
    mean = truth.mean(dim=2, keepdim=True).expand_as(truth)
    vrmse = metrics.vrmse(mean - truth, truth)
    torch.testing.assert_close(vrmse, torch.ones_like(vrmse), rtol=1e-6, atol=0)
    assert metrics.pdebench_nrmse(mean, truth).max() < 0.5, "of a field with a mean, nRMSE flatters"
    assert metrics.correlation(mean, truth).abs().max() < 1e-6
    constant = torch.full_like(truth, 2.0)
    assert metrics.correlation(mean, constant).min() == 1, "nothing to follow"


@pytest.mark.parametrize("shift", [0.05, 0.3, 1.0])
def test_a_sine_that_is_shifted_has_its_closed_form(shift):
    """sin(kx) against sin(kx - s): the error has the size 2 sin(s / 2), and the correlation is cos(s)."""
    x = 2 * torch.pi * (torch.arange(X, dtype=torch.float64) + 0.5) / X
    truth, late = (5.0 * (3 * x - s).sin().view(1, 1, X, 1) for s in (0.0, shift))
    size = 2 * math.sin(shift / 2)
    assert metrics.vrmse(late - truth, truth).item() == pytest.approx(size, rel=1e-6)
    assert metrics.pdebench_nrmse(late, truth).item() == pytest.approx(size, rel=1e-9)
    assert metrics.correlation(late, truth).item() == pytest.approx(math.cos(shift), rel=1e-9)
    assert metrics.rmse(late - truth).item() == pytest.approx(5.0 / math.sqrt(2) * size, rel=1e-9)
    assert metrics.conserved_error(late - truth).item() < 1e-12


def test_times_end_with_the_last_good_frame_and_before_what_is_not_finite():
    truth = sine(1).expand(4, T, X, 1)
    prediction = truth.clone()
    prediction[0, 3:] *= 1.3  # relative L2 of 0.3
    prediction[1] *= 1.3
    prediction[1, 4] = truth[1, 4]  # too late
    prediction[2, 2] = torch.nan
    case = forecasts(prediction[:, None], truth)
    valid, follows = (
        metrics.PER_TRAJECTORY[name].formula(case) for name in ("valid_time", "correlation_time")
    )
    assert valid.tolist() == pytest.approx([0.3, 0.0, 0.2, HORIZON])
    assert follows.tolist() == pytest.approx([HORIZON, HORIZON, 0.2, HORIZON])
    prediction[3, 1] = truth[3, 1].roll(X // 4, dims=0)
    again = metrics.PER_TRAJECTORY["correlation_time"].formula(forecasts(prediction[:, None], truth))
    assert again[3].item() == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("wave", "bin_"), [((0, 0), 0), ((3, 0), 3), ((3, 4), 5), ((5, 5), 7), ((11, 11), 15)]
)
def test_a_plane_wave_is_in_its_radial_bin_alone(wave, bin_):
    grid = (32, 32)
    x, y = torch.meshgrid(*[(torch.arange(n).double() + 0.5) / n for n in grid], indexing="ij")
    field = (2 * torch.pi * (wave[0] * x + wave[1] * y)).cos().reshape(1, 1, -1, 1)
    squares = metrics.power(field, grid)[0, 0, :, 0]
    amplitude = 1.0 if wave == (0, 0) else 0.25  # of the coefficient over the number of points, squared
    assert squares[bin_].item() / 1024**2 == pytest.approx(amplitude, rel=1e-9)
    assert squares.sum().item() == pytest.approx(squares[bin_].item(), rel=1e-9)


def test_a_band_beyond_the_grid_is_left_out():
    assert list(metrics.spectral_rmse(metrics.power(normal(2, 1, 64, 1), (8, 8)), 64)) == ["low"]
    assert list(metrics.spectral_rmse(metrics.power(normal(2, 1, 16, 1), (16,)), 16)) == ["low", "mid"]


def test_mass_drift_of_a_known_shift():
    initial = 2 * sine(1).expand(N, 1, X, C)[:, 0] + 3.0  # rms sqrt(2 + 9)
    prediction = initial[:, None].repeat(1, T, 1, 1)
    fields = PROBLEMS["burgers1d"].fields * C
    assert metrics.mass_drift(prediction, initial, fields).max() < 1e-12
    prediction[2, 3, :, 1] -= 0.5
    prediction[2, 1, :, 1] += 0.2
    drift = metrics.mass_drift(prediction, initial, fields).amax(dim=-1)
    assert drift[2, [1, 3]].tolist() == pytest.approx([0.2 / math.sqrt(11), 0.5 / math.sqrt(11)], rel=1e-9)
    drift[2, [1, 3]] = 0
    assert drift.max() < 1e-12


def test_momentum_of_a_gas_at_rest_has_a_unit():
    initial = torch.tensor([1.0, 0.0, 4.0]).expand(N, X, 3)
    prediction = initial[:, None].repeat(1, T, 1, 1)
    prediction[..., 1] = 1e-3
    drift = metrics.mass_drift(prediction, initial, PROBLEMS["compressible1d"].conserved_fields)
    torch.testing.assert_close(drift, torch.tensor([0.0, 0.5, 0.0]).expand(N, T, 3))  # of a thousandth of 2


@pytest.mark.parametrize("count", [2, 3, 16])
def test_crps_is_the_double_sum(count):
    members, truth = normal(N, count, T, X, C, seed=1), normal(N, T, X, C, seed=2)
    expected = (members - truth[:, None]).abs().mean(dim=1)
    for i in range(count):
        for j in range(count):
            expected -= (members[:, i] - members[:, j]).abs() / (2 * count * (count - 1))
    torch.testing.assert_close(metrics.crps(members, truth), expected.mean(dim=2))


@pytest.mark.parametrize("count", [2, 4, 16])
def test_crps_does_not_depend_on_the_size_of_the_ensemble(count):
    """Standard normal members and truth: E|X - Y| - E|X - X'| / 2 = 1 / sqrt(pi) for every size."""
    samples = 40_000
    members, truth = normal(samples, count, 1, 1, 1, seed=count), normal(samples, 1, 1, 1, seed=99)
    scores = metrics.crps(members, truth)
    assert scores.mean().item() == pytest.approx(
        1 / math.sqrt(math.pi), abs=4 * metrics.standard_error(scores)
    )


@pytest.mark.parametrize("count", [4, 16, 19])
@pytest.mark.parametrize("distribution", ["normal", "bimodal"])
def test_a_calibrated_ensemble_covers_what_it_promises(count, distribution):
    samples = 30_000

    def draw(shape: tuple[int, ...], seed: int) -> Tensor:
        values = normal(*shape, seed=seed)
        return values if distribution == "normal" else values * 0.1 + values.sign() * 3

    ranks = metrics.rank_counts(draw((samples, count, 1, 1, 1), count), draw((samples, 1, 1, 1), 99))
    for level in metrics.LEVELS:
        covered = metrics.coverage(ranks, level)
        error = covered.std().item() / math.sqrt(samples)
        assert covered.mean().item() == pytest.approx(level, abs=4 * error)
    quantiles = metrics.quantile_coverage(ranks.sum(dim=(0, 1))).tolist()
    nominal = [(k + 1) / (count + 1) for k in range(count)]
    assert quantiles == pytest.approx(nominal, abs=4 * 0.5 / math.sqrt(samples))
    assert metrics.expected_calibration_error(ranks.sum(dim=(0, 1))) < 4 * 0.5 / math.sqrt(samples)


@pytest.mark.parametrize(("count", "expected"), [(4, 0.75), (16, 0.15), (19, 0.0)])
def test_an_ensemble_that_always_misses_covers_what_is_documented(count, expected):
    truth = normal(N, T, X, C)
    members = truth[:, None] + 1 + torch.rand(N, count, T, X, C)
    for ensemble in (members, members - 3):
        ranks = metrics.rank_counts(ensemble, truth)
        assert metrics.coverage(ranks, 0.9).mean().item() == pytest.approx(expected, abs=1e-6)


def test_a_truth_in_the_middle_is_always_covered():
    truth = normal(N, T, X, C)
    offsets = torch.linspace(-1, 1, 16).view(1, 16, 1, 1, 1)
    ranks = metrics.rank_counts(truth[:, None] + offsets, truth)
    for level in metrics.LEVELS:
        assert metrics.coverage(ranks, level).min() == pytest.approx(1)


def test_too_narrow_an_ensemble_covers_too_little():
    members, truth = normal(5000, 16, 1, 1, 1, seed=1), normal(5000, 1, 1, 1, seed=2)
    narrow, wide = (metrics.rank_counts(factor * members, truth) for factor in (0.5, 2.0))
    assert metrics.coverage(narrow, 0.9).mean() < 0.75
    assert metrics.coverage(wide, 0.9).mean() > 0.95


def test_ranks_count_the_members_below():
    truth = torch.zeros(1, 1, 3, 1)
    members = torch.tensor([[-1.0, 1.0, 2.0], [-2.0, -1.0, 3.0]]).T.reshape(1, 3, 1, 2, 1)
    counts = metrics.rank_counts(members, truth[:, :, :2])
    assert counts.tolist() == [[[0, 1, 1, 0]]]


def test_ranks_are_counted_for_each_trajectory_and_frame():
    members, truth = normal(N, 3, T, X, C, seed=1), normal(N, T, X, C, seed=2)
    counts = metrics.rank_counts(members, truth)
    for i in range(N):
        for j in range(T):
            below = (members[i, :, j] < truth[i, j]).sum(dim=0)
            assert counts[i, j].tolist() == [(below == rank).sum().item() for rank in range(4)]


@pytest.mark.parametrize(
    ("ranks", "error"),
    [
        ([5, 5, 5, 5], 0.0),
        ([20, 0, 0, 0], 0.5),  # the truth below all members: 1 in place of 1/4, 2/4, 3/4
        ([0, 0, 0, 20], 0.5),
        ([10, 0, 0, 10], (0.25 + 0.0 + 0.25) / 3),
        ([0, 10, 10, 0], (0.25 + 0.0 + 0.25) / 3),
    ],
)
def test_the_calibration_error_of_known_ranks(ranks, error):
    assert metrics.expected_calibration_error(torch.tensor(ranks)) == pytest.approx(error)


def test_the_standard_error_is_that_of_the_mean():
    assert metrics.standard_error(torch.tensor([1.0, 2.0, 3.0])) == pytest.approx(1 / math.sqrt(3))
    assert math.isnan(metrics.standard_error(torch.tensor([1.0])))


@pytest.mark.parametrize("members", [2, 5, 16])
def test_the_spread_of_a_calibrated_gaussian_is_its_skill(members):
    """Of M members the mean errs by the truth's deviation and its own: the factor (M + 1) / M is for that."""
    drawn = torch.randn(4_000, members + 1, 2, generator=torch.Generator().manual_seed(0))
    ensemble, truth = drawn[:, :members], drawn[:, members]
    error = (ensemble.mean(dim=1) - truth).square()
    for factor in (1, 4):
        value, low, high = metrics.spread_skill(ensemble.var(dim=1) / factor, error, members)
        assert value == pytest.approx(factor**-0.5, rel=0.03)
        assert low < value < high
        assert high - low < 0.1 * value


def test_the_worst_trajectory_decides_the_spread_over_skill_and_not_its_median():
    variance, error = torch.ones(101, 1), torch.ones(101, 1)
    error[7] = 1000
    value, low, high = metrics.spread_skill(variance, error, 10**6)
    assert value == pytest.approx((101 / 1100) ** 0.5, rel=1e-5)
    assert low < value
    assert high == pytest.approx(1, rel=1e-5), "a third of all draws miss it"
    assert metrics.spread_skill_median(variance, error, 10**6) == pytest.approx(1, rel=1e-5)
    assert all(map(math.isnan, metrics.spread_skill(variance[:1], error[:1], 2)[1:]))


def test_the_crps_of_one_member_is_its_absolute_error():
    members, truth = torch.randn(2, 7, 1, 3, 5, 2, generator=torch.Generator().manual_seed(0))
    found = metrics.crps(members, truth[:, 0])
    torch.testing.assert_close(found, (members - truth)[:, 0].abs().mean(dim=2))
