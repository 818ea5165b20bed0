"""What comes with the library is small, is found by its name, and is as good as it says."""

import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
from command_line import CONFIGS, ups

from ups.config import load_configuration
from ups.data.pdebench import read_trajectories
from ups.data.splits import generated_rows
from ups.errors import ConfigurationError
from ups.evaluation.predictor import Predictor, load
from ups.problems.generated import Generated
from ups.reference import reference_models
from ups.tools.generation import generate_file

NAME = "burgers_demo"
CHECKOUT = CONFIGS.parent


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return load(NAME, device="cpu")


@pytest.fixture(scope="module")
def test_rows(tmp_path_factory) -> Path:
    """The test split of the demo, solved again."""
    data = load_configuration(CONFIGS / f"{NAME}.yaml").data
    assert isinstance(data, Generated)
    directory = tmp_path_factory.mktemp("test_split")
    rows = generated_rows("test", data.counts.test)
    generate_file(data, rows, directory / "test.hdf5", directory / "blocks", device="cpu", threads=1)
    return directory / "test.hdf5"


def result(predictor: Predictor, model: str) -> float:
    """The mean error that the table of its run has."""
    (value,) = (
        record["value"]
        for record in predictor.results
        if (record["model"], record["metric"]) == (model, "trajectory_relative_l2")
    )
    return value


def test_what_is_shipped_is_packaged_and_no_larger_than_twelve_megabytes():
    assert NAME in reference_models()
    package = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    for path in reference_models().values():
        assert path.stat().st_size <= 12e6
        assert any(path.match(pattern) for pattern in package["ups.reference"])


def test_a_name_is_enough(predictor, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    u = np.sin(2 * np.pi * np.array(predictor.usage().coordinates[0]))
    forecast = predictor.forecast(u, steps=2, parameters={"nu": 0.01})
    assert forecast.mean["u"].shape == (1, 2, 128)
    assert forecast.provenance["commit"]
    for name in ("burgers", "runs/burgers_demo", f"{NAME}.safetensors"):
        with pytest.raises(
            ConfigurationError, match=f"(?s)^{name}: there is no such run or file.*one of {NAME}"
        ):
            load(name)


def test_its_row_is_that_of_the_readme(predictor):
    text = (CHECKOUT / "README.md").read_text()
    found = re.search(r"^\| `operator` \| \S+ ± \S+ \[(\S+), (\S+)\] \|", text, re.MULTILINE)
    assert found, "the first table of README.md has a row of the operator, with its range over seeds"
    low, high = map(float, found.groups())
    assert low * 0.995 <= result(predictor, "operator") <= high * 1.005  # three digits are printed


@pytest.mark.slow
def test_it_is_as_good_as_its_file_says(predictor, test_rows):
    """Forecasts of the whole test split against the table of its run."""
    read = read_trajectories(test_rows, np.arange(64), problem="burgers1d", space_stride=4)
    truth = read.fields[..., 0].astype(np.float64)
    forecast = predictor.forecast(truth[:, 0], parameters=read.parameters).mean["u"]
    wrong = np.linalg.norm(forecast - truth[:, 1:], axis=(1, 2)) / np.linalg.norm(truth[:, 1:], axis=(1, 2))
    assert wrong.mean() == pytest.approx(result(predictor, "operator"), rel=1e-3)


@pytest.mark.slow
def test_the_command_scores_it(test_rows, tmp_path):
    done = ups("evaluate", NAME, "--file", test_rows, "--rows", "2", "--device", "cpu", "--root", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "\nconsistency_1 " in done.stdout
    assert "dressed" not in done.stdout
    assert "kept in" not in done.stderr
    assert not list(tmp_path.iterdir())
    unknown = ups("evaluate", "burgers", "--file", test_rows)
    assert unknown.returncode == 2
    assert f"or one of {NAME}" in unknown.stderr
