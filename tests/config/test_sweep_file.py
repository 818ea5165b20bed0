"""The file of a sweep: members, names, and what is wrong with it."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import CONFIGS, TINY

from ups.config.sweep import Range, load_sweep
from ups.errors import ConfigurationError

RATE, WARMUP = "training.operator.learning_rate", "training.operator.warmup_steps"


def write(directory: Path, **sweep: Any) -> Path:
    path = directory / "some.yaml"
    path.write_text(yaml.safe_dump({"base": str(TINY)} | sweep, sort_keys=False))
    return path


def names(path: Path) -> list[str]:
    return [member.name for member in load_sweep(path)[1]]


@pytest.mark.parametrize(
    ("file", "count"), [("round_a", 9), ("round_b", 3), ("round_c", 3), ("tiny", 9), ("tiny_halving", 9)]
)
def test_the_known_sweeps_are_valid(file, count):
    sweep, members = load_sweep(CONFIGS / "sweeps" / f"{file}.yaml")
    assert len(members) == count
    assert sweep.rank_by == "operator"
    assert len({member.name for member in members}) == count


def test_the_known_sweeps_are_all_here():
    assert {path.stem for path in (CONFIGS / "sweeps").iterdir()} == {
        "round_a", "round_b", "round_c", "tiny", "tiny_halving",
    }  # fmt: skip


def test_a_grid_has_every_combination_and_names_of_resolved_values(tmp_path):
    path = write(tmp_path, grid={RATE: [3e-4, 1e-3], WARMUP: ["10 %", 5]}, overrides={"seed": 7})
    sweep, members = load_sweep(path)
    assert sweep.last == "operator"
    assert [member.name for member in members] == [
        "learning_rate=0.0003 warmup_steps=2",
        "learning_rate=0.0003 warmup_steps=5",
        "learning_rate=0.001 warmup_steps=2",
        "learning_rate=0.001 warmup_steps=5",
    ]
    assert members[0].varied == {RATE: 3e-4, WARMUP: 2}
    assert {member.configuration.seed for member in members} == {7}
    assert {member.configuration.training.operator.learning_rate for member in members} == {3e-4, 1e-3}


def test_a_template_names_members(tmp_path):
    path = write(tmp_path, grid={RATE: [1e-3, 2e-3]}, name=f"r{{{RATE}}}-s{{seed}}-{{model.operator}}")
    assert names(path) == ["r0.001-s0-transformer", "r0.002-s0-transformer"]


def test_keys_with_the_same_last_word_are_told_apart(tmp_path):
    keys = {"training.operator.batch_size": [4], "training.autoencoder.batch_size": [4, 8]}
    assert names(write(tmp_path, grid=keys))[0] == "operator.batch_size=4 autoencoder.batch_size=4"


def test_seeds_are_members_of_one_configuration(tmp_path):
    _, members = load_sweep(write(tmp_path, grid={RATE: [1e-3, 2e-3]}, seeds=3, overrides={"seed": 5}))
    assert [(member.configuration_name, member.configuration.seed) for member in members] == [
        (f"learning_rate={rate}", seed) for rate in ("0.001", "0.002") for seed in (5, 6, 7)
    ]
    assert members[0].name == "learning_rate=0.001 seed=5"


@pytest.mark.parametrize("kind", ["random", "sobol"])
def test_draws_lie_in_their_ranges_and_are_the_same_every_time(tmp_path, kind):
    keys = {
        RATE: {"low": 1e-4, "high": 1e-2, "log": True},
        WARMUP: {"low": 0, "high": 10, "whole": True},
        "training.operator.batch_size": [4, 8],
    }
    path = write(tmp_path, **{kind: {"samples": 16, "seed": 3, "keys": keys}})
    _, members = load_sweep(path)
    assert [member.name for member in members] == names(path)
    settings = [member.configuration.training.operator for member in members]
    assert all(1e-4 <= own.learning_rate <= 1e-2 and 0 <= own.warmup_steps <= 10 for own in settings)
    assert {own.batch_size for own in settings} == {4, 8}
    below = sum(own.learning_rate < 1e-3 for own in settings)
    assert below == 8 if kind == "sobol" else 2 <= below <= 14, "half of the logarithms"


def test_cases_are_listed_and_go_with_a_grid(tmp_path):
    cases = {"wide": {"model.operator.width": 32}, "long": {"training.operator.steps": 40}}
    _, members = load_sweep(write(tmp_path, cases=cases, grid={RATE: [1e-3, 2e-3]}))
    assert [member.name for member in members] == [
        "wide learning_rate=0.001", "long learning_rate=0.001", "wide learning_rate=0.002", "long learning_rate=0.002",
    ]  # fmt: skip
    assert members[1].varied == {RATE: 1e-3, "model.operator.width": 16, "training.operator.steps": 40}


def test_a_relative_base_starts_at_the_sweep(tmp_path, monkeypatch):
    (tmp_path / "base.yaml").write_bytes(TINY.read_bytes())
    path = write(tmp_path, base="base.yaml", grid={RATE: [1e-3]})
    monkeypatch.chdir("/")
    assert load_sweep(path)[1][0].config == str(tmp_path / "base.yaml")


GRID = {RATE: [1e-3, 2e-3]}


@pytest.mark.parametrize(
    ("sweep", "told"),
    [
        ({}, "nothing varies: add grid, random, sobol or cases"),
        ({"gird": GRID}, "gird: unknown key; did you mean 'grid'?"),
        ({"grid": {}}, "grid: Dictionary should have at least 1 item"),
        ({"grid": {RATE: []}}, f"grid.{RATE}: List should have at least 1 item"),
        ({"grid": {RATE: 1e-3}}, f"grid.{RATE}: must be a valid list (got 0.001)"),
        ({"grid": {"training.operator.lerning_rate": [1]}}, "lerning_rate: unknown key; did you mean 'learning_rate'?"),
        ({"grid": {RATE: [1e-3, 0.001]}}, "names two members"),
        ({"grid": GRID, "name": "same"}, "some.yaml: name: 'same' names two members"),
        ({"grid": {"training.operator.log_every": [5, 10]}}, "are the same work up to operator, and would have one key"),
        ({"grid": {"training.diffusion.steps": [5, 10]}}, "set until to a stage that reads it"),
        ({"grid": GRID, "name": "r{training.operator.learning_rat}"}, "did you mean 'learning_rate'?"),
        ({"grid": GRID, "overrides": {RATE: 1}}, f"{RATE} is given twice"),
        ({"grid": {"seeds": [1, 2]}}, "seeds is not for members: write seeds: in the sweep"),
        ({"grid": {"seed": [1, 2]}, "seeds": 2}, "seed is not for members"),
        ({"grid": GRID, "rank_by": "evaluate"}, "rank_by: must be 'autoencoder' or 'operator' (got 'evaluate')"),
        ({"grid": GRID, "until": "evaluate"}, "which reads the test split: set finalists"),
        ({"grid": GRID, "until": "download"}, "until: must be one of operator, diffusion, consistency"),
        ({"grid": GRID, "stop": "medain"}, "stop.medain: unknown key; did you mean 'median'?"),
        ({"grid": GRID, "stop": {}}, "stop: must be one of median, successive_halving"),
        ({"grid": GRID, "stop": "successive_halving"}, "stop.successive_halving.first: required key is missing"),
        ({"grid": GRID, "stop": {"successive_halving": {"first": 20}}}, "20 is not below training.operator.steps 20"),
        ({"grid": GRID, "stop": {"successive_halving": {"first": 5}}}, "there is no validation at step 5"),
        ({"random": {"samples": 2, "keys": {RATE: {"low": 1, "high": 1}}}}, "high 1 must be above low 1"),
        ({"random": {"samples": 2, "keys": {RATE: {"low": 0, "high": 1, "log": True}}}}, "has no logarithm"),
        ({"random": {"samples": 2, "keys": {RATE: {"low": 0, "hihg": 1}}}}, f"random.keys.{RATE}.hihg: unknown key"),
        ({"random": {"samples": 0, "keys": {RATE: [1]}}}, "random.samples: must be greater than or equal to 1"),
        ({"random": {"samples": 9, "keys": {RATE: [1e-3]}}}, "names two members"),
        ({"grid": {RATE: list(range(1, 200)), "seed": list(range(99))}}, "19701 members are more than 10000"),
        ({"base": "none.yaml", "grid": GRID}, "none.yaml: no such file"),
        ({"grid": {RATE: [-1.0]}}, "learning_rate: must be greater than 0"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_file_field_and_fix(tmp_path, sweep, told):
    path = write(tmp_path, **sweep)
    with pytest.raises(ConfigurationError) as raised:
        load_sweep(path)
    assert told in str(raised.value)
    assert str(path) in str(raised.value)


def test_the_ends_of_ranges_are_met():
    assert [Range(low=1e-4, high=1e-2, log=True).at(share) for share in (0, 0.5, 1)] == [1e-4, 1e-3, 1e-2]
    assert [Range(low=0, high=3, whole=True).at(share) for share in (0, 0.5, 1)] == [0, 2, 3]
