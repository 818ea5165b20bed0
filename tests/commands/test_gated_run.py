"""A run with gates: it ends with 7 once all is published, and loses nothing by it."""

import json
import shutil
from pathlib import Path

import pytest
from command_line import TINY, ups

OFF = "tracking.wandb=disabled"


@pytest.fixture(scope="module")
def gated(finished_root: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory):
    """A function that runs the tiny configuration with gates, where all its stages are sealed."""
    root = tmp_path_factory.mktemp("gated") / "root"
    shutil.copytree(finished_root[0], root)

    def run(*assignments: str):
        settings = [word for assignment in (OFF, *assignments) for word in ("--set", assignment)]
        earlier = set((root / "runs").iterdir())
        done = ups("run", TINY, "--root", root, *settings)
        [new] = set((root / "runs").iterdir()) - earlier
        return done, new

    return run


def test_results_that_do_not_pass_are_published_first_and_fail_again(gated):
    mass = "gates.test=[{model: operator, metric: mass_drift, at_most: 1e-9}]"
    for _ in range(2):
        done, run = gated(mass, "resources.hourly_rate_usd=3.6")
        assert done.returncode == 7, done.stderr
        assert "gate error: gates: operator mass_drift of burgers1d is " in done.stderr
        assert ", not at most 1e-09" in done.stderr
        lines = done.stdout.splitlines()
        assert sum(" cached  " in line for line in lines) == 7, "what is sealed is used"
        assert any(line.startswith("consistency_2") for line in lines), "the result table"
        [row] = [line.split() for line in lines if line.startswith("test ")]
        assert (row[1:4], row[-2:]) == (["operator", "mass_drift", "burgers1d"], ["1e-09", "failed"])
        assert "0 OF 1 GATES PASSED" in (run / "report.html").read_text()
        assert "This run cost 0" in (run / "report.html").read_text()
        assert json.loads((run / "ended.json").read_text())["state"] == "failed"


def test_trainings_that_do_not_pass_are_not_evaluated(gated):
    gate = "gates.validation=[{stage: operator, at_most: 1e-9}, {stage: autoencoder, at_most: 10}]"
    done, run = gated(gate)
    assert done.returncode == 7, done.stderr
    assert "operator validation_relative_l2 is " in done.stderr
    assert "autoencoder" not in done.stderr
    assert "evaluate" not in json.loads((run / "artifacts.json").read_text())
    assert not (run / "metrics.json").exists()
    verdicts = json.loads((run / "gates.json").read_text())
    assert [(verdict["subject"], verdict["passed"]) for verdict in verdicts] == [
        ("operator", False),
        ("autoencoder", True),
    ]


def test_a_run_that_passes_ends_well(gated):
    done, run = gated(
        "gates.validation=[{stage: operator, at_most: 1e9}]",
        "gates.test=[{model: persistence, metric: mass_drift, at_most: 1e-6}]",
    )
    assert done.returncode == 0, done.stderr
    assert [verdict["kind"] for verdict in json.loads((run / "gates.json").read_text())] == [
        "validation",
        "test",
    ]
    assert "2 OF 2 GATES PASSED" in (run / "report.html").read_text()
