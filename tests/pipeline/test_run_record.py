"""What a run's directory says of it: its state by its lock, what it cost, what it found."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import TINY
from made_up_runs import make_run
from small_run import STAGES

from ups.errors import ConfigurationError, GateError, IntegrityError, Interrupted, ProcessKilled, StageError
from ups.pipeline.run import Run
from ups.pipeline.run_record import Number, RunRecord, best_model, where

OFF = {"tracking.wandb": "disabled", "execution.device": "cpu"}


def started(root: Path) -> Run:
    return Run.start(TINY, OFF, root=root, until="download")


def state(run: Run | Path) -> str:
    return RunRecord.read(run if isinstance(run, Path) else run.directory).state


@pytest.mark.parametrize(
    ("error", "expected", "code"),
    [
        (StageError("it broke"), "failed", 1),
        (GateError("it is not good enough"), "failed", 7),
        (Interrupted("told to end"), "interrupted", 75),
        (ProcessKilled("gone"), "interrupted", 1),
        (KeyboardInterrupt(), "interrupted", 75),
        (ZeroDivisionError("a mistake of ours"), "failed", 1),
    ],
)
def test_a_run_is_as_it_ended(tmp_path, error, expected, code):
    run = started(tmp_path)

    def work() -> None:
        with run:
            assert state(run) == "running"
            raise error

    with pytest.raises(type(error)):
        work()
    record = RunRecord.read(run.directory)
    assert (record.state, record.message) == (expected, str(error) or type(error).__name__)
    assert json.loads((run.directory / "ended.json").read_text())["exit_code"] == code


def test_a_run_that_came_to_its_end_is_finished(tmp_path):
    with started(tmp_path) as run:
        pass
    assert state(run) == "finished"


GOES_ON = """
import sys, time
from ups.pipeline.run import Run
run = Run.start(sys.argv[1], {"tracking.wandb": "disabled", "execution.device": "cpu"}, root=sys.argv[2], until="download")
print(run.directory, flush=True)
time.sleep(600)
"""


def test_a_run_whose_process_was_killed_is_interrupted_at_once(tmp_path):
    child = subprocess.Popen(
        [sys.executable, "-c", GOES_ON, TINY, tmp_path], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    directory = Path(child.stdout.readline().strip())
    assert state(directory) == "running"
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert state(directory) == "interrupted"
    assert "without a word" in str(RunRecord.read(directory).message)


def test_a_run_of_an_earlier_version_is_told_by_what_it_made(tmp_path):
    assert state(make_run(tmp_path)) == "finished"
    assert state(make_run(tmp_path, "20260102T030406Z-small-1", stages=STAGES[:3])) == "interrupted"


def test_a_hit_costs_this_run_nothing(tmp_path):
    record = RunRecord.read(make_run(tmp_path, hits=STAGES[:5]))
    assert (record.seconds, record.seconds_from_scratch) == (20.0, 75.0)
    assert record.cost(record.seconds) == pytest.approx(0.02)
    assert record.cost(record.seconds_from_scratch) == pytest.approx(0.075)
    unknown = RunRecord.read(make_run(tmp_path, "20260102T030406Z-small-1", rate=None))
    assert unknown.cost(unknown.seconds) is None


def test_the_best_model_is_a_trained_one_nearest_to_the_target(tmp_path):
    results = RunRecord.read(make_run(tmp_path, error=100.0)).results["burgers1d"]
    model, number = best_model(results) or ("", Number(None))
    assert model == "consistency_1", "persistence is better and needs no training"
    assert number == pytest.approx((4.0, 4.0 - 1.96 * 0.0492, 4.0 + 1.96 * 0.0492))
    assert (best_model(results, "coverage_90") or [""])[0] == "diffusion", "0.91 is nearer to 0.9 than 0.98"
    with pytest.raises(ConfigurationError, match="'error_over_operator' ranks nothing"):
        best_model(results, "error_over_operator")


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"training.operator.learning_rate": "2e-3"}, True),
        ({"training.operator.learning_rate": "2e-3", "seed": "8"}, False),
        ({"training.operator": "{learning_rate: 0.002}"}, True),
        ({"training.diffusion.learning_rate": "2e-3"}, False),
        ({"seed.of": "7"}, False),
        ({}, True),
    ],
)
def test_runs_are_found_by_values_of_their_configuration(tmp_path, wanted, found):
    assert where(wanted)(RunRecord.read(make_run(tmp_path))) is found


def test_what_is_no_run_or_damaged_is_named(tmp_path):
    (tmp_path / "runs" / "empty").mkdir(parents=True)
    with pytest.raises(
        ConfigurationError, match=r"empty: is not the directory of a run \(it has no config.yaml"
    ):
        RunRecord.read(tmp_path / "runs" / "empty")
    run = make_run(tmp_path)
    (run / "artifacts.json").write_text("{")
    with pytest.raises(IntegrityError, match=r"artifacts\.json: is not JSON"):
        RunRecord.read(run)
