"""The harness scores truth as perfect, shuffled truth as wrong, and writes complete records."""

import json
import math
from dataclasses import replace
from typing import get_args

import pytest
import torch
from tiny import waves
from torch import Tensor

from ups.evaluation.baselines import persistence, spatial_mean, train_mean
from ups.evaluation.metrics import LEVELS, PER_TRAJECTORY, paired_ratio
from ups.evaluation.result_records import result_records, score_records
from ups.evaluation.scores import Scores, Setting, score
from ups.metric_labels import METRICS, SYMMETRIES
from ups.problems import PROBLEMS, Symmetry

TRUTH = waves(10, 7, grid=64)
SETTING = Setting(
    problem="ours",
    dataset="waves",
    version="generated",
    split="test",
    fields=PROBLEMS["burgers1d"].fields,
    boundary="periodic",
    is_map=False,
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
    "rmse",
    "conserved_rmse",
    "max_error",
    "boundary_rmse",
    "vrmse",
    "final_relative_l2",
    "mass_drift",
    "spectral_rmse_low",
    "spectral_rmse_mid",
    "spectral_rmse_high",
]
FOLLOWING = {"correlation": 1.0, "valid_time": 6.0, "correlation_time": 6.0}
"""Best values of metrics that are no errors; of six steps of 1."""
OF_ENSEMBLES = [
    "spread_skill",
    "spread_skill_median",
    "calibration_error",
    "coverage_50",
    "coverage_90",
    "coverage_95",
]
KEYS = {
    "problem",
    "fields_scored",
    "field",
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
    return score("model", forecast, TRUTH, SETTING, members=members, calls_per_step=2, batch=batch)


def table(scores: Scores) -> dict[str, float]:
    return {record["metric"]: record["value"] for record in score_records(scores, SETTING)}


def test_the_oracle_scores_zero_everywhere():
    values = table(scored(lookup(ORACLE)))
    assert {name: values[name] for name in POINT_METRICS if name != "mass_drift"} == {
        name: 0.0 for name in POINT_METRICS if name != "mass_drift"
    }
    assert values["mass_drift"] < 1e-6  # the waves' own mean, in float32
    assert {name: values[name] for name in FOLLOWING} == pytest.approx(FOLLOWING, rel=1e-6)


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
    for name in ("per_field", "trajectory", "drift", "spectral", "spectrum", *PER_TRAJECTORY):
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
        score("p", persistence(6), still, SETTING, members=1, calls_per_step=0, batch=4)
        .get("trajectory")
        .max()
        == 0
    )


def test_records_are_complete_json():
    table = score_records(scored(lookup(ORACLE, members=4, noise=0.1), members=4), SETTING)
    assert sorted(record["metric"] for record in table) == sorted(
        [
            *POINT_METRICS,
            *FOLLOWING,
            *OF_ENSEMBLES,
            "crps",
            "seconds_per_trajectory",
        ]
    )
    for record in table:
        assert record.keys() >= KEYS
        assert (record["model"], record["dataset"], record["split"]) == ("model", "waves", "test")
        assert (record["problem"], record["fields_scored"], record["field"]) == ("ours", ["u"], None)
        assert (record["n_trajectories"], record["frames"], record["frames_skipped"]) == (10, 7, 1)
        assert (record["resolution"], record["seed"], record["n_members"]) == ([64], 3, 4)
        assert math.isfinite(record["value"])
        assert record["unit"]
    assert json.loads(json.dumps(table, allow_nan=False)) == table


def test_a_deterministic_model_has_no_ensemble_metrics_but_its_absolute_error():
    forecast = lookup(ORACLE, factor=0.5)
    values = table(scored(forecast))
    assert sorted(values) == sorted([*POINT_METRICS, *FOLLOWING, "crps", "seconds_per_trajectory"])
    assert values["crps"] == pytest.approx(0.5 * TRUTH[:, 1:].abs().mean().item(), rel=1e-5)


@pytest.mark.parametrize("members", [2, 16])
def test_the_spread_of_a_calibrated_ensemble_is_its_error(members):
    """Members and truth are draws of one distribution: 1, whatever the number of members."""
    generator = torch.Generator().manual_seed(1)
    middle = TRUTH[:, 1:] + 0.3 * torch.randn(TRUTH[:, 1:].shape, generator=generator)

    def forecast(initial: Tensor) -> Tensor:
        found = [int((TRUTH[:, 0] - frame).abs().amax(dim=(1, 2)).argmin()) for frame in initial]
        noise = torch.randn(len(initial), members, *middle.shape[1:], generator=generator)
        return middle[found][:, None] + 0.3 * noise

    assert table(scored(forecast, members=members))["spread_skill"] == pytest.approx(1, rel=0.05)


def test_numbers_by_lead_time_add_up_to_the_number():
    forecast = lookup(ORACLE, factor=0.9, members=4, noise=0.1)
    records = {r["metric"]: r for r in score_records(scored(forecast, members=4), SETTING)}
    without = {
        "trajectory_relative_l2", "trajectory_relative_l2_median", "final_relative_l2", "valid_time", "correlation_time",
        "spread_skill_median", "seconds_per_trajectory",
    }  # fmt: skip
    assert {name for name, record in records.items() if record["by_lead"] is None} == without
    for name in records.keys() - without:
        assert len(records[name]["by_lead"]) == 6
    means = {*POINT_METRICS, "crps", "correlation", *(f"coverage_{100 * level:.0f}" for level in LEVELS)}
    for name in means - without - {"mass_drift"}:
        assert records[name]["value"] == pytest.approx(sum(records[name]["by_lead"]) / 6, rel=1e-5), name
    assert records["final_relative_l2"]["value"] == pytest.approx(
        records["pdebench_nrmse"]["by_lead"][-1], rel=1e-5
    )


def test_the_given_frame_counts_where_pdebenchs_paper_counts_it_and_only_there():
    def records(steps: int) -> dict:
        setting = replace(SETTING, initial_steps=steps)
        forecast = lookup(ORACLE, factor=0.9)
        result = score("model", forecast, TRUTH, setting, members=1, calls_per_step=1, batch=4)
        return {record["metric"]: record for record in score_records(result, setting)}

    ours, papers, later = records(1), records(0), records(4)
    for name in (
        "pdebench_nrmse",
        "rmse",
        "conserved_rmse",
        "max_error",
        "boundary_rmse",
        "spectral_rmse_low",
    ):
        assert papers[name]["value"] == pytest.approx(ours[name]["value"] * 6 / 7, rel=1e-6)
        assert later[name]["value"] == pytest.approx(sum(ours[name]["by_lead"][3:]) / 3, rel=1e-5)
        assert [each[name]["frames_skipped"] for each in (ours, papers, later)] == [1, 0, 4]
        assert ours[name]["by_lead"] == papers[name]["by_lead"] == later[name]["by_lead"]
    for name in ours.keys() - {"pdebench_nrmse", "rmse", "conserved_rmse", "max_error", "boundary_rmse"}:
        if not name.startswith(("spectral", "seconds")):
            assert papers[name] == ours[name]


def test_a_forecast_that_blew_up_is_null_and_not_a_number():
    values = table(scored(lambda initial: lookup(ORACLE)(initial) * torch.nan))
    assert values["trajectory_relative_l2"] is None
    assert values["pdebench_nrmse"] is None
    assert values["valid_time"] == values["correlation_time"] == 0


MAP = replace(
    SETTING, fields=PROBLEMS["darcy2d"].fields, boundary="dirichlet", is_map=True, resolution=(8, 8), frames=2
)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_given_fields_are_never_scored():
    truth = normal(6, 2, 8, 8, 2)

    def forecast(initial: Tensor) -> Tensor:
        found = [int((truth[:, 0] - frame).abs().amax(dim=(1, 2, 3)).argmin()) for frame in initial]
        return truth[found, 1:].flatten(2, -2)[:, None] + torch.tensor([7.0, 0.0])

    table = score_records(score("m", forecast, truth, MAP, members=1, calls_per_step=1, batch=4), MAP)
    values = {record["metric"]: record["value"] for record in table}
    assert values.pop("seconds_per_trajectory") > 0
    assert values.pop("correlation") == pytest.approx(1, rel=1e-6)
    assert set(values.values()) == {0.0}
    assert {tuple(record["fields_scored"]) for record in table} == {("u",)}


def test_a_map_has_mean_and_median_of_its_one_frame_and_nothing_of_time():
    truth = normal(7, 2, 8, 8, 2)
    errors = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 2.1])

    def forecast(initial: Tensor) -> Tensor:
        return truth[:, None, 1:].flatten(3, -2) * (1 + errors.view(-1, 1, 1, 1, 1))

    table = score_records(score("m", forecast, truth, MAP, members=1, calls_per_step=1, batch=7), MAP)
    values = {record["metric"]: record["value"] for record in table}
    assert values["trajectory_relative_l2"] == pytest.approx(0.6, rel=1e-5)
    assert values["trajectory_relative_l2_median"] == pytest.approx(0.4, rel=1e-5)
    assert values["pdebench_nrmse"] == pytest.approx(0.6, rel=1e-5)
    assert values.keys() == {
        "trajectory_relative_l2",
        "trajectory_relative_l2_median",
        "pdebench_nrmse",
        "rmse",
        "conserved_rmse",
        "max_error",
        "boundary_rmse",
        "vrmse",
        "correlation",
        "spectral_rmse_low",
        "crps",
        "seconds_per_trajectory",
    }  # the grid has no wavenumbers of the other bands
    assert {record["frames"] for record in table} == {2}
    assert {record["by_lead"] for record in table} == {None}


def test_the_median_of_an_even_number_lies_between_the_middle_two():
    truth = normal(4, 2, 8, 8, 2)

    def forecast(initial: Tensor) -> Tensor:
        errors = torch.tensor([0.1, 0.2, 0.4, 0.8]).view(-1, 1, 1, 1, 1)
        return truth[:, None, 1:].flatten(3, -2) * (1 + errors)

    table = score_records(score("m", forecast, truth, MAP, members=1, calls_per_step=1, batch=4), MAP)
    (median,) = [r["value"] for r in table if r["metric"] == "trajectory_relative_l2_median"]
    assert median == pytest.approx(0.3, rel=1e-5)


def test_the_train_mean_is_the_same_field_for_every_sample():
    mean = normal(8, 8, 2)
    forecast = train_mean(mean)(normal(3, 8, 8, 2, seed=1))
    assert forecast.shape == (3, 1, 1, 64, 2)
    for sample in range(3):
        assert torch.equal(forecast[sample, 0, 0], mean.flatten(0, 1))


FLOW = replace(SETTING, fields=PROBLEMS["compressible1d"].fields, frames=4, resolution=(32,))


def flow() -> Tensor:
    return normal(5, 4, 32, 3) + torch.tensor([3.0, 0.0, 40.0])


def scaled(factors: tuple[float, float, float], units: Tensor, *, members: int = 1):
    truth = flow() * units

    def forecast(initial: Tensor) -> Tensor:
        future = truth[:, None, 1:] * (1 + torch.tensor(factors))
        return future.expand(-1, members, -1, -1, -1) + 0.01 * units * normal(5, members, 3, 32, 3, seed=9)

    return score("m", forecast, truth, FLOW, members=members, calls_per_step=1, batch=5)


def test_errors_of_several_fields_are_averaged_and_told_one_by_one():
    table = score_records(scaled((0.1, 0.3, 0.8), torch.ones(3)), FLOW)
    by_field = {r["field"]: r["value"] for r in table if r["metric"] == "trajectory_relative_l2"}
    assert list(by_field) == [None, "density", "velocity", "pressure"]
    assert by_field["density"] == pytest.approx(0.1, abs=0.01)
    assert by_field["velocity"] == pytest.approx(0.3, abs=0.01)
    assert by_field["pressure"] == pytest.approx(0.8, abs=0.01)
    assert by_field[None] == pytest.approx(sum(v for k, v in by_field.items() if k) / 3, rel=1e-6)
    units = {r["field"]: r["unit"] for r in table if r["metric"] == "spectral_rmse_low"}
    assert units == {field.name: field.unit for field in FLOW.fields}


def test_other_units_change_nothing_but_what_has_a_unit():
    units = torch.tensor([1e-3, 1e3, 1e2])
    plain, other = (
        score_records(scaled((0.1, 0.3, 0.8), u, members=4), FLOW) for u in (torch.ones(3), units)
    )
    assert len(plain) == len(other)
    factor = dict(zip(("density", "velocity", "pressure"), units.tolist(), strict=True))
    for before, after in zip(plain, other, strict=True):
        if before["metric"] == "seconds_per_trajectory":
            continue
        scale = factor[before["field"]] if "/" in before["unit"] else 1.0
        assert after["value"] == pytest.approx(scale * before["value"], rel=1e-3), before["metric"]


@pytest.mark.parametrize(
    ("changes", "channels"),
    [
        ({}, [0]),
        ({"fields": PROBLEMS["compressible1d"].conserved_fields}, [0, 1, 2]),
        ({"boundary": "outflow"}, []),
        ({"is_map": True}, []),
    ],
)
def test_mass_is_that_of_conserved_fields_without_walls(changes, channels):
    setting = replace(FLOW, **changes)
    assert setting.conserved == channels
    truth = flow()
    table = score_records(
        score("p", persistence(3), truth, setting, members=1, calls_per_step=0, batch=2), setting
    )
    drifts = [record["value"] for record in table if record["metric"] == "mass_drift"]
    assert drifts == ([0.0] if channels else [])


# --- compared, by trajectory -----------------------------------------------------------------------


def test_a_paired_interval_is_that_of_the_differences_and_not_of_the_spread_over_trajectories():
    """Errors that vary a hundredfold over trajectories, of which one model has 5 % less on each, give or take 1 %."""
    generator = torch.Generator().manual_seed(0)
    reference = 10 ** (2 * torch.rand(64, generator=generator))
    better = reference * (0.95 + 0.01 * torch.randn(64, generator=generator))
    ratio, low, high = paired_ratio(better, reference)
    assert ratio == pytest.approx((better.mean() / reference.mean()).item())
    assert low < ratio < high
    assert high < 1, "better"
    assert high - low < 0.01
    shuffled = better[torch.randperm(64, generator=generator)]
    unpaired, *interval = paired_ratio(shuffled, reference)
    assert unpaired == pytest.approx(ratio)
    assert interval[0] < 1 < interval[1], "not to be told apart without the pairs"
    assert paired_ratio(better, reference) == (ratio, low, high), "always the same"


def test_the_interval_holds_the_true_ratio_as_often_as_it_says():
    generator = torch.Generator().manual_seed(1)
    held = 0
    for _ in range(200):
        first, second = 1 + 0.3 * torch.randn(2, 50, generator=generator)
        _, low, high = paired_ratio(0.8 * first, second)
        held += low < 0.8 < high
    assert 180 <= held <= 199


def test_one_trajectory_and_a_forecast_that_blew_up_have_no_interval():
    assert math.isnan(paired_ratio(torch.tensor([1.0]), torch.tensor([2.0]))[1])
    ratio, low, _ = paired_ratio(torch.tensor([1.0, math.inf]), torch.tensor([2.0, 1.0]))
    assert (ratio, math.isnan(low)) == (math.inf, True)


def test_everybody_is_compared_with_the_operator_and_ensembles_with_the_dressed_one():
    def named(name: str, factor: float, members: int = 1, noise: float = 0.0):
        forecast = lookup(ORACLE, factor=factor, members=members, noise=noise)
        return score(name, forecast, TRUTH, SETTING, members=members, calls_per_step=1, batch=4)

    results = [
        named("persistence", 0.0),
        named("operator", 0.9),
        named("operator_dressed", 0.9, members=4, noise=0.2),
        named("diffusion", 0.95, members=4, noise=0.1),
    ]
    table = [record for record in result_records(results, SETTING) if "_over_" in record["metric"]]
    assert [(record["model"], record["metric"]) for record in table] == [
        ("persistence", "error_over_operator"),
        ("operator_dressed", "error_over_operator"),
        ("diffusion", "error_over_operator"),
        ("diffusion", "crps_over_dressed"),
    ]
    assert table[0]["value"] == pytest.approx(10, rel=1e-4)
    assert table[0]["interval"] == pytest.approx([10, 10], rel=1e-4)
    assert table[3]["interval"][0] < table[3]["value"] < table[3]["interval"][1] < 1


def test_every_mean_is_compared_with_the_operators_on_the_same_trajectories():
    def named(name: str, factor: float, members: int = 1, noise: float = 0.0):
        forecast = lookup(ORACLE, factor=factor, members=members, noise=noise)
        return score(name, forecast, TRUTH, SETTING, members=members, calls_per_step=1, batch=4)

    results = [
        named("persistence", 0.0),
        named("operator", 0.9),
        named("operator_dressed", 0.9, members=4, noise=0.2),
    ]
    table = {(r["model"], r["metric"]): r for r in result_records(results, SETTING)}
    worse = table["persistence", "rmse"]["over_operator"]
    assert worse == pytest.approx([10, 10, 10], rel=1e-4)
    assert table["operator", "rmse"]["over_operator"] is None
    assert table["persistence", "max_error"]["over_operator"] is None, "no mean over trajectories"
    assert table["persistence", "mass_drift"]["over_operator"] is not None
    ratio, low, high = table["operator_dressed", "crps"]["over_operator"]
    crps = (table[model, "crps"]["value"] for model in ("operator_dressed", "operator"))
    assert ratio == pytest.approx(next(crps) / next(crps), rel=1e-5)
    assert low < ratio < high
    headline = table["operator_dressed", "trajectory_relative_l2"]["over_operator"]
    compared = table["operator_dressed", "error_over_operator"]
    assert headline == pytest.approx([compared["value"], *compared["interval"]], rel=1e-9)


def test_every_number_of_the_records_has_its_words():
    named = {metric.name for metric in METRICS}
    assert named >= PER_TRAJECTORY.keys()
    assert named >= {f"coverage_{100 * level:.0f}" for level in LEVELS}
    assert set(get_args(Symmetry)) == SYMMETRIES.keys()
