"""The harness scores truth as perfect, shuffled truth as wrong, and writes complete records."""

import json
import math

import pytest
import torch
from tiny import waves
from torch import Tensor

from ups.evaluation.baselines import persistence, spatial_mean
from ups.evaluation.score import Scores, Setting, records, score

TRUTH = waves(10, 7, grid=64)
SETTING = Setting(
    dataset="waves",
    version="generated",
    split="test",
    seed=3,
    resolution=(64,),
    frames=7,
    device="cpu",
    threads=1,
)
POINT_METRICS = [
    "trajectory_relative_l2",
    "trajectory_relative_l2_median",
    "pdebench_nrmse",
    "final_relative_l2",
    "mass_drift",
    "spectral_rmse_low",
    "spectral_rmse_mid",
    "spectral_rmse_high",
]
KEYS = {
    "model",
    "dataset",
    "split",
    "metric",
    "value",
    "unit",
    "n_trajectories",
    "frames",
    "frames_skipped",
    "resolution",
    "seed",
}


def lookup(order: list[int], *, factor: float = 1.0, members: int = 1, noise: float = 0.0):
    """A forecast that finds each first frame in TRUTH and returns the frames of trajectory `order[i]`."""
    generator = torch.Generator().manual_seed(0)

    def forecast(initial: Tensor) -> Tensor:
        found = [int((TRUTH[:, 0] - frame).abs().amax(dim=(1, 2)).argmin()) for frame in initial]
        future = factor * TRUTH[[order[i] for i in found], 1:]
        spread = noise * torch.randn(len(initial), members, *future.shape[1:], generator=generator)
        return future[:, None] + spread

    return forecast


ORACLE = list(range(10))


def scored(forecast, *, members: int = 1, batch: int = 4) -> Scores:
    return score("model", forecast, TRUTH, members=members, calls_per_step=2, batch=batch)


def table(scores: Scores) -> dict[str, float]:
    return {record["metric"]: record["value"] for record in records(scores, SETTING)}


def test_the_oracle_scores_zero_everywhere():
    values = table(scored(lookup(ORACLE)))
    assert {name: values[name] for name in POINT_METRICS if name != "mass_drift"} == {
        name: 0.0 for name in POINT_METRICS if name != "mass_drift"
    }
    assert values["mass_drift"] < 1e-6  # the waves' own mean, in float32


def test_half_the_amplitude_scores_one_half():
    values = table(scored(lookup(ORACLE, factor=0.5)))
    for name in (
        "trajectory_relative_l2",
        "trajectory_relative_l2_median",
        "pdebench_nrmse",
        "final_relative_l2",
    ):
        assert values[name] == pytest.approx(0.5, rel=1e-6)


def test_the_futures_of_other_trajectories_score_as_badly_as_they_are():
    values = table(scored(lookup(ORACLE[1:] + ORACLE[:1])))
    assert values["trajectory_relative_l2"] > 0.8
    assert values["pdebench_nrmse"] > 0.8


def test_scores_do_not_depend_on_the_size_of_the_batches():
    forecast = lookup(ORACLE[1:] + ORACLE[:1])
    whole, parts = scored(forecast, batch=100), scored(forecast, batch=3)
    for name in ("trajectory", "frame", "drift", "spectral", "spectrum"):
        torch.testing.assert_close(whole.get(name), parts.get(name))


def test_the_mean_of_an_ensemble_is_what_point_metrics_see():
    """Noise of deviation s in M members leaves s / sqrt(M) in their mean, and all of it in the CRPS."""
    s, m = 0.3, 16
    values = table(scored(lookup(ORACLE, members=m, noise=s), members=m))
    size = TRUTH[:, 1:].square().mean(dim=(1, 2, 3)).sqrt().mean().item()
    assert values["trajectory_relative_l2"] == pytest.approx(s / math.sqrt(m) / size, rel=0.15)
    # The truth is the centre of each ensemble: E|X| - E|X - X'| / 2 = s (sqrt(2) - 1) / sqrt(pi)
    assert values["crps"] == pytest.approx(s * (math.sqrt(2) - 1) / math.sqrt(math.pi), rel=0.05)
    assert values["coverage_90"] > 0.97


def test_persistence_repeats_the_first_frame_and_the_mean_is_flat():
    initial = TRUTH[:, 0]
    repeated, flat = persistence(6)(initial), spatial_mean(6)(initial)
    assert repeated.shape == flat.shape == (10, 1, 6, 64, 1)
    for frame in range(6):
        assert torch.equal(repeated[:, 0, frame], initial)
        torch.testing.assert_close(flat[:, 0, frame], initial.mean(dim=1, keepdim=True).expand(-1, 64, -1))
    assert table(scored(persistence(6)))["mass_drift"] == 0
    # waves without a mean: the flat forecast is as wrong as they are large
    assert table(scored(spatial_mean(6)))["trajectory_relative_l2"] == pytest.approx(1.0, rel=1e-4)
    still = TRUTH[:, :1].expand(-1, 7, -1, -1).clone()
    assert (
        score("p", persistence(6), still, members=1, calls_per_step=0, batch=4).get("trajectory").max() == 0
    )


def test_records_are_complete_json():
    told = records(scored(lookup(ORACLE, members=4, noise=0.1), members=4), SETTING)
    assert [record["metric"] for record in told] == [
        *POINT_METRICS,
        "crps",
        "coverage_90",
        "seconds_per_trajectory",
    ]
    for record in told:
        assert record.keys() >= KEYS
        assert (record["model"], record["dataset"], record["split"]) == ("model", "waves", "test")
        assert (record["n_trajectories"], record["frames"], record["frames_skipped"]) == (10, 7, 1)
        assert (record["resolution"], record["seed"], record["n_members"]) == ([64], 3, 4)
        assert math.isfinite(record["value"])
        assert record["unit"]
    assert json.loads(json.dumps(told, allow_nan=False)) == told


def test_a_deterministic_model_has_no_ensemble_metrics():
    assert list(table(scored(lookup(ORACLE)))) == [*POINT_METRICS, "seconds_per_trajectory"]


def test_a_forecast_that_blew_up_is_null_and_not_a_number():
    values = table(scored(lambda initial: lookup(ORACLE)(initial) * torch.nan))
    assert values["trajectory_relative_l2"] is None
    assert values["pdebench_nrmse"] is None
