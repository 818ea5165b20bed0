"""A small evaluation scores validation trajectories, and neither reads nor depends on a test trajectory."""

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import TINY
from derived import digests

from ups.artifacts import Store
from ups.config import load_configuration
from ups.config.schema import STAGES
from ups.data.dataset import DESCRIPTION
from ups.errors import ConfigurationError
from ups.runtime.request import Request
from ups.stages import evaluate


def test_it_reads_the_validation_split_in_place_of_the_test_split():
    assert STAGES["evaluate"].splits(load_configuration(TINY)) == ("train", "test")
    small = load_configuration(TINY, {"evaluation.small": 2})
    assert STAGES["evaluate"].splits(small) == ("train", "validation")


def test_its_key_knows_no_test_trajectory_and_the_full_ones_does(tmp_path):
    def key(test: int, small: int | None) -> str:
        overrides = {"data.trajectories.test": test, "evaluation.small": small}
        return digests(load_configuration(TINY, overrides), Store(tmp_path))["evaluate"]

    assert key(test=4, small=2) == key(test=3, small=2) != key(test=4, small=3)
    assert key(test=4, small=None) != key(test=3, small=None)


def test_its_key_knows_nothing_of_what_is_left_to_the_full_one(tmp_path):
    left = {"evaluation.ttc": {"members": 4}, "evaluation.outside": {"amplitude": 2.0}}
    keys = {
        digests(load_configuration(TINY, more | {"evaluation.small": small}), Store(tmp_path))["evaluate"]
        for more in ({}, left)
        for small in (2, None)
    }
    assert len(keys) == 3


def test_it_never_touches_a_test_row(finished_root, tmp_path):
    """The same trained run without any test trajectories: small is scored, full is not."""
    _, run = finished_root
    pointers = json.loads((run / "artifacts.json").read_text())
    inputs = {stage: (run / pointer["path"]).resolve() for stage, pointer in pointers.items()}
    problems = json.loads((inputs["download"] / DESCRIPTION).read_text())
    for problem in problems.values():
        places = {
            split: str((inputs["download"] / place).resolve()) for split, place in problem["parts"].items()
        }
        problem["parts"] = places | {"test": str(tmp_path / "no test trajectories")}
    inputs["download"] = tmp_path / "download"
    inputs["download"].mkdir()
    (inputs["download"] / DESCRIPTION).write_text(json.dumps(problems))

    def output(**settings: Any) -> Path:
        work = tmp_path / str(settings["small"])
        (work / "output").mkdir(parents=True)
        overrides = {f"evaluation.{key}": value for key, value in settings.items()}
        configuration = load_configuration(run / "config.yaml", overrides)
        evaluate.run(Request(work, tmp_path, "evaluate", "x", configuration, inputs, {}))
        return work / "output"

    written = output(small=2, outside={"amplitude": 2.0, "offset": 1.0})
    records = json.loads((written / "metrics.json").read_text())
    assert {(record["split"], record["n_trajectories"]) for record in records} == {("validation", 2)}
    assert {"operator", "diffusion", "consistency_2"} <= {record["model"] for record in records}
    assert json.loads((written / "outside.json").read_text()) == []
    with pytest.raises(FileNotFoundError, match="no test trajectories"):
        output(small=None)


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("small", 5, "evaluation.small: 5 are more than the 4 validation trajectories of burgers1d: lower it"),
        ("small", 0, "evaluation.small"),
        ("pdebench_initial_steps", 9, "evaluation.pdebench_initial_steps: 9 leaves none of the 9 frames of burgers1d"),
        ("pdebench_initial_steps", -1, "evaluation.pdebench_initial_steps"),
    ],
)  # fmt: skip
def test_what_scores_nothing_is_refused(key, value, told):
    with pytest.raises(ConfigurationError) as refused:
        load_configuration(TINY, {f"evaluation.{key}": value})
    assert told in str(refused.value)
