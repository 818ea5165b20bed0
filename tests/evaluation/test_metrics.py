"""Metrics against known answers, PDEBench's formulas written again in numpy, and brute force."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from ups.evaluation import metrics
from ups.losses.relative import relative_l2

N, T, X, C = 6, 5, 64, 2


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sine(wavenumber: int, points: int = X) -> Tensor:
    x = (torch.arange(points, dtype=torch.float64) + 0.5) / points
    return (2 * torch.pi * wavenumber * x).sin().view(1, 1, points, 1)


def test_truth_has_no_error():
    truth = normal(N, T, X, C)
    assert metrics.pdebench_nrmse(truth, truth).abs().max() == 0
    assert metrics.crps(truth[:, None].expand(-1, 4, -1, -1, -1), truth).abs().max() < 1e-12
    assert relative_l2(truth, truth).abs().max() == 0


def test_half_the_amplitude_is_half_the_error_in_every_relative_metric():
    truth = normal(N, T, X, C)
    assert torch.equal(metrics.pdebench_nrmse(truth / 2, truth), torch.full((N, T, C), 0.5).double())
    torch.testing.assert_close(relative_l2(truth / 2, truth), torch.full((N,), 0.5).double())


def pdebench(prediction: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """nRMSE and fRMSE as PDEBench's metrics.py computes them, one sample, frame and channel at a time."""
    n, t, x, c = truth.shape
    nrmse, spectra = [], np.zeros((n, t, x // 2 + 1, c))
    for i in range(n):
        for j in range(t):
            for k in range(c):
                p, y = prediction[i, j, :, k], truth[i, j, :, k]
                nrmse.append(np.sqrt(np.mean((p - y) ** 2)) / np.sqrt(np.mean(y**2)))
                spectra[i, j, :, k] = np.abs(np.fft.rfft(p) - np.fft.rfft(y)) ** 2
    fourier = np.sqrt(spectra.mean(axis=0)) / x
    return {
        "nrmse": float(np.mean(nrmse)),
        "low": float(fourier[:, :4].mean()),
        "mid": float(fourier[:, 4:12].mean()),
        "high": float(fourier[:, 12:].mean()),
    }


@pytest.mark.parametrize("points", [X, 63])
def test_pdebench_metrics_are_pdebenchs(points):
    truth, prediction = normal(N, T, points, C, seed=1), normal(N, T, points, C, seed=2)
    expected = pdebench(prediction.numpy(), truth.numpy())
    assert metrics.pdebench_nrmse(prediction, truth).mean().item() == pytest.approx(
        expected["nrmse"], rel=1e-12
    )
    bands = metrics.spectral_rmse(metrics.power(prediction - truth, (points,)), points)
    assert bands == {name: pytest.approx(expected[name], rel=1e-12) for name in ("low", "mid", "high")}


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
    bands = metrics.spectral_rmse(metrics.power(error, (X,)), X)
    amplitude = 0.1 if wavenumber in {0, 32} else 0.05  # of the coefficient, over the number of points
    width = {"low": 4, "mid": 8, "high": 21}[band]
    assert bands.pop(band) == pytest.approx(amplitude / width, rel=1e-6)
    assert max(bands.values()) < 1e-9


def pdebench_2d(prediction: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """fRMSE of two axes as PDEBench's documentation has it: radial bins, coefficient by coefficient."""
    n, t, nx, ny, c = truth.shape
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
        "low": float(fourier[:, :4].mean()),
        "mid": float(fourier[:, 4:12].mean()),
        "high": float(fourier[:, 12:].mean()),
    }


@pytest.mark.parametrize("grid", [(32, 32), (26, 40), (41, 27)])
def test_spectral_metrics_of_two_axes_are_pdebenchs(grid):
    points = math.prod(grid)
    truth, prediction = normal(2, 2, points, C, seed=1), normal(2, 2, points, C, seed=2)
    bands = metrics.spectral_rmse(metrics.power(prediction - truth, grid), points)
    shape = (2, 2, *grid, C)
    expected = pdebench_2d(prediction.numpy().reshape(shape), truth.numpy().reshape(shape))
    assert bands == {name: pytest.approx(expected[name], rel=1e-12) for name in ("low", "mid", "high")}


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
    assert metrics.mass_drift(prediction, initial).max() < 1e-12
    prediction[2, 3, :, 1] -= 0.5
    prediction[2, 1, :, 1] += 0.2
    drift = metrics.mass_drift(prediction, initial)
    assert drift[2].item() == pytest.approx(0.5 / math.sqrt(11), rel=1e-9)
    assert drift[[0, 1, 3, 4, 5]].max() < 1e-12


@pytest.mark.parametrize("count", [2, 3, 16])
def test_crps_is_the_double_sum(count):
    members, truth = normal(N, count, T, X, C, seed=1), normal(N, T, X, C, seed=2)
    expected = (members - truth[:, None]).abs().mean(dim=1)
    for i in range(count):
        for j in range(count):
            expected -= (members[:, i] - members[:, j]).abs() / (2 * count * (count - 1))
    torch.testing.assert_close(metrics.crps(members, truth), expected.mean(dim=(1, 2)))


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

    covered = metrics.coverage(
        draw((samples, count, 1, 1, 1), count), draw((samples, 1, 1, 1), 99), 0.9
    ).double()
    error = covered.std().item() / math.sqrt(samples)
    assert covered.mean().item() == pytest.approx(0.9, abs=4 * error)


@pytest.mark.parametrize(("count", "expected"), [(4, 0.75), (16, 0.15), (19, 0.0)])
def test_an_ensemble_that_always_misses_covers_what_is_documented(count, expected):
    truth = normal(N, T, X, C)
    members = truth[:, None] + 1 + torch.rand(N, count, T, X, C)
    assert metrics.coverage(members, truth, 0.9).mean().item() == pytest.approx(expected, abs=1e-6)
    assert metrics.coverage(members - 3, truth, 0.9).mean().item() == pytest.approx(expected, abs=1e-6)


def test_a_truth_in_the_middle_is_always_covered():
    truth = normal(N, T, X, C)
    offsets = torch.linspace(-1, 1, 16).view(1, 16, 1, 1, 1)
    assert metrics.coverage(truth[:, None] + offsets, truth, 0.9).min() == 1


def test_too_narrow_an_ensemble_covers_too_little():
    members, truth = normal(5000, 16, 1, 1, 1, seed=1), normal(5000, 1, 1, 1, seed=2)
    assert metrics.coverage(members / 2, truth, 0.9).mean() < 0.75
    assert metrics.coverage(members * 2, truth, 0.9).mean() > 0.95


def test_ranks_count_the_members_below():
    truth = torch.zeros(1, 1, 3, 1)
    members = torch.tensor([[-1.0, 1.0, 2.0], [-2.0, -1.0, 3.0]]).T.reshape(1, 3, 1, 2, 1)
    counts = metrics.rank_counts(members, truth[:, :, :2])
    assert counts.tolist() == [0, 1, 1, 0]


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
    torch.testing.assert_close(found, (members - truth).abs().mean(dim=(1, 2, 3)))
