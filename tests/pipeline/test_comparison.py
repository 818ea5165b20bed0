"""A/B comparisons: the right trainings in the right order, and ratios and gates as a hand would compute them."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from ups.config import load_configuration
from ups.errors import ComparisonError, ConfigurationError
from ups.pipeline.ab_gates import Gates, Ratio, judged, require_passed
from ups.pipeline.comparison import (
    BASELINE,
    OPTIMISED,
    Arm,
    Trained,
    arms_of,
    differences,
    name_of,
    read_training,
    turns,
)
from ups.pipeline.intervals import _STUDENT

CONFIGS = Path(__file__).parents[2] / "configs"
TINY = str(CONFIGS / "burgers_tiny.yaml")


@pytest.fixture
def changed(tmp_path):
    """The tiny configuration with other values, as a file."""

    def write(name: str, **values: object) -> str:
        content = yaml.safe_load(Path(TINY).read_text()) | {"name": name}
        for key, value in values.items():
            *sections, last = key.split("__")
            place = content
            for section in sections:
                place = place.setdefault(section, {})
            place[last] = value
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(content))
        return str(path)

    return write


def compared(
    baseline: str, optimised: str, overrides: dict[str, Any] | None = None, *, leave_one_out: bool = False
) -> list[Arm]:
    arms = (Arm("", config, overrides or {}) for config in (baseline, optimised))
    return arms_of(*arms, leave_one_out=leave_one_out)


def test_what_is_chosen_by_a_kind_differs_as_a_whole():
    left = {"a": {"kind": "x", "size": 1}, "b": {"c": 1, "d": 2}, "e": {"kind": "y", "f": 1}}
    right = {"a": {"kind": "z"}, "b": {"c": 1, "d": 3}, "e": {"kind": "y", "f": 2}, "g": 4}
    assert differences(left, right) == {"a": {"kind": "x", "size": 1}, "b.d": 2, "e.f": 1, "g": None}


def test_each_difference_can_be_left_out(changed):
    optimised = changed(
        "fast", training__operator__accumulation=2, training__operator__optimizer={"kind": "muon"}
    )
    arms = compared(TINY, optimised, {"training.operator.steps": 20}, leave_one_out=True)
    names = [arm.name for arm in arms]
    assert names[:2] == [BASELINE, OPTIMISED]
    assert set(names[2:]) == {
        "without training.operator.accumulation",
        "without training.operator.optimizer",
    }
    without = {arm.name: arm.load().training.operator for arm in arms}
    assert without["without training.operator.accumulation"].accumulation == 1
    assert without["without training.operator.accumulation"].optimizer.kind == "muon"
    assert without["without training.operator.optimizer"].optimizer.kind == "adamw"
    assert all(training.steps == 20 for training in without.values())


def test_what_cannot_be_compared_is_refused(changed):
    with pytest.raises(ConfigurationError, match=r"has other data than .* \(data.nu\)"):
        compared(TINY, changed("other", data__nu=0.02))
    with pytest.raises(ConfigurationError, match="is the same training as"):
        compared(TINY, changed("same", evaluation__members=3, seed=7))
    with pytest.raises(ConfigurationError, match="a comparison runs on one machine"):
        compared(TINY, changed("several", execution__nodes=2, training__operator__accumulation=2))
    together = changed("together", execution__processes=2, execution__data_parallel="ddp")
    with pytest.raises(
        ConfigurationError, match=r"execution\.processes: cannot be left out of .* by itself: "
    ):
        compared(TINY, together, leave_one_out=True)


def test_what_trains_the_same_is_the_same_comparison(changed):
    before = name_of(compared(TINY, changed("fast", training__operator__accumulation=2)))
    renamed = changed(
        "renamed",
        training__operator__accumulation=2,
        seed=3,
        evaluation__members=3,
        resources={"hourly_rate_usd": 2.0},
        hooks={"finished": "true"},
        gates={"test": [{"model": "operator", "metric": "mass_drift", "at_most": 1.0}]},
    )
    assert name_of(compared(TINY, renamed)) == before
    other = changed("other", training__operator__accumulation=2, training__operator__learning_rate=5e-4)
    assert name_of(compared(TINY, other)) != before


def test_trainings_take_turns_and_each_begins_in_its_turn():
    arms = [Arm("a", TINY, {"seed": 5}), Arm("b", TINY, {"seed": 9})]
    order = [(arm.name, seed) for arm, seed in turns(arms, 3)]
    assert order == [("a", 5), ("b", 5), ("b", 6), ("a", 6), ("a", 7), ("b", 7)]


def test_the_records_of_a_training_are_read():
    records = [
        {"step": 1, "loss": 9.0, "seconds_per_step": 5.0},
        {"step": 10, "loss": 1.0, "seconds_per_step": 1.0},
        {"step": 10, "validation_relative_l2": 0.5, "validation_relative_l2/a": 0.4},
        {"step": 20, "loss": 1.0, "seconds_per_step": 2.0},
        {"step": 20, "validation_relative_l2": 0.25},
        {"step": 20, "validation_relative_l2_raw": 0.3},
        {"step": 20, "peak_memory_gigabytes": 1.5},
    ]
    found = read_training("a", 3, "operator", records, best=False)
    assert found == Trained("a", 3, 1.5, 34.0, 0.25, [(14.0, 0.5), (34.0, 0.25)], 1.5)
    with pytest.raises(ConfigurationError, match="a trains nothing"):
        read_training("a", 3, "operator", [{"step": 0, "validation_relative_l2": 1.0}], best=False)


def test_the_error_is_that_of_the_published_weights_and_what_is_no_number_is_infinite():
    records = [
        {"step": 1, "seconds_per_step": 1.0},
        {"step": 1, "validation_relative_l2": 0.1},
        {"step": 2, "seconds_per_step": 1.0},
        {"step": 2, "validation_relative_l2": None},
    ]
    last, best = (read_training("a", 0, "operator", records, best=best) for best in (False, True))
    assert (last.error, best.error) == (math.inf, 0.1)
    assert last.memory is None, "it was killed before it could tell"
    trained = pair(0, speed=2.0, error=1.0, memory=1.0)
    trained += [replace(trained[0], seed=1), replace(last, arm=OPTIMISED, seed=1)]
    record = judged(trained, Gates())[1]
    assert [message.partition(":")[0] for message in record["failed"]] == ["speed", "error"]
    with pytest.raises(ComparisonError, match="ended with one that is not finite"):
        require_passed([record], where="x")


def test_quantiles_are_students():
    """By its density, integrated: t for n degrees of freedom is a normal number over the root of a mean of n squares."""
    for freedom in (1, 2, 5, 30):
        points = torch.linspace(0, _STUDENT[freedom - 1], 200_001, dtype=torch.float64)
        density = (1 + points**2 / freedom) ** (-(freedom + 1) / 2)
        density *= math.gamma((freedom + 1) / 2) / math.gamma(freedom / 2) / math.sqrt(freedom * math.pi)
        assert torch.trapezoid(density, points).item() == pytest.approx(0.475, abs=1e-4)


def test_a_ratio_has_the_interval_of_its_logarithms():
    ratio = Ratio.of([math.exp(1.0), math.exp(2.0), math.exp(3.0)])
    assert [math.log(value) for value in (ratio.mean, ratio.low, ratio.high)] == pytest.approx(
        [2.0, 2.0 - 4.303 / math.sqrt(3), 2.0 + 4.303 / math.sqrt(3)]
    )
    assert Ratio.of([4.0, 4.0]).low == pytest.approx(4.0)


def pair(seed: int, *, speed: float, error: float, memory: float) -> list[Trained]:
    noise = 1 + 0.3 * seed  # of the machine, which meets both
    return [
        Trained(BASELINE, seed, noise, 100.0, 0.1 * noise, [(50.0, 1.0), (100.0, 0.1 * noise)], 2.0),
        Trained(
            OPTIMISED,
            seed,
            noise / speed,
            100 / speed,
            0.1 * noise * error,
            [(90 / speed, 0.1 * noise * 1.04), (100 / speed, 0.1 * noise * error)],
            2.0 * memory,
        ),
    ]


@pytest.mark.parametrize(
    ("speed", "error", "memory", "failed"),
    [
        (1.5, 1.0, 1.0, []),
        (1.5, 1.02, 1.1, []),
        (1.0, 1.0, 1.0, ["speed"]),
        (2.0, 1.04, 1.0, ["speed", "error"]),
        (2.0, 1.0, 1.2, ["memory"]),
        (0.9, 2.0, 1.2, ["speed", "error", "memory"]),
    ],
)
def test_gates(speed, error, memory, failed):
    trained = [one for seed in range(3) for one in pair(seed, speed=speed, error=error, memory=memory)]
    baseline, optimised = judged(trained, Gates())
    assert "failed" not in baseline
    assert optimised["step_speed"].mean == pytest.approx(speed)
    assert optimised["error_ratio"].high == pytest.approx(error)
    assert optimised["memory_ratio"] == pytest.approx(memory)
    assert [message.partition(":")[0] for message in optimised["failed"]] == failed
    assert baseline["seconds_to_target"] == 100.0
    assert optimised["seconds_to_target"] == (pytest.approx(100 / speed) if error < 1.03 else None)


def test_a_step_that_takes_longer_and_learns_more_is_faster():
    baseline = [Trained(BASELINE, s, 1.0, 100.0, 0.2, [(50.0, 0.4), (100.0, 0.2)], 1.0) for s in range(2)]
    optimised = [Trained(OPTIMISED, s, 1.2, 120.0, 0.1, [(60.0, 0.205), (120.0, 0.1)], 1.0) for s in range(2)]
    record = judged(baseline + optimised, Gates())[1]
    assert record["step_speed"].mean == pytest.approx(1 / 1.2)
    assert record["speed"].mean == pytest.approx(100 / 60)
    assert record["failed"] == []


def test_a_gain_that_the_seeds_do_not_show_is_none():
    trained = pair(0, speed=2.0, error=1.0, memory=1.0) + pair(1, speed=1.0, error=1.0, memory=1.0)
    (message,) = judged(trained, Gates())[1]["failed"]
    assert message.startswith("speed: 1.414 [0.0")
    assert "times the baseline's is not shown to be above 1" in message


@pytest.mark.parametrize("suffix", ["ddp", "ddp_4gpu"])
def test_the_pairs_of_the_two_task_baseline_exist(suffix):
    """Their batches and losses differ too, as they did in the earlier implementation."""
    names = [str(CONFIGS / f"pdebench_2task_baseline_{suffix}{end}.yaml") for end in ("_original", "")]
    left, right = (load_configuration(name) for name in names)
    assert (left.data, left.model) == (right.data, right.model)
    assert [arm.name for arm in compared(*names)] == [BASELINE, OPTIMISED]
    found = set(differences(left.model_dump(mode="json"), right.model_dump(mode="json")))
    assert {"execution.data_parallel", "execution.compile", "execution.activation_checkpointing"} <= found
    for operator in (left.training.operator, right.training.operator):
        # The settings of the earlier implementation that both of a pair had.
        assert operator.learning_rate == operator.final_learning_rate == 1.4e-3
        assert (operator.weight_decay, operator.betas, operator.ema_decay) == (0.03, (0.9, 0.999), 0.999)
        assert operator.early_stop == 3


def test_each_difference_of_the_demo_pair_can_be_left_out():
    names = [str(CONFIGS / f"burgers_demo{end}.yaml") for end in ("_adamw", "")]
    arms = compared(*names, leave_one_out=True)
    assert [arm.name for arm in arms[2:]] == [
        f"without training.operator.{key}" for key in ("optimizer", "start_exponent")
    ]
