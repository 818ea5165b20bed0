"""`ups sweep` as a user meets it, with real trainings."""

import json
import shlex
import shutil
import signal
from pathlib import Path

import pytest
import yaml
from command_line import CONFIGS, TINY, start_ups, ups
from marked_processes import MARKER_VARIABLE, marked, wait_until

from ups.artifacts.files import read_records

SWEEP = CONFIGS / "sweeps" / "tiny.yaml"
RATE = "training.operator.learning_rate"


def write(directory: Path, **sweep: object) -> Path:
    path = directory / "some.yaml"
    values = {
        "base": str(TINY),
        "overrides": {"tracking.wandb": "disabled", "execution.device": "cpu"},
        "grid": {RATE: [1e-3, 2e-3, 4e-3]},
        "name": f"r{{{RATE}}}",
    }
    path.write_text(yaml.safe_dump(values | sweep))
    return path


def trainings(root: Path) -> list[str]:
    """Rates of all trainings of the operator that were sealed, once for each."""
    return sorted(
        str(json.loads(path.read_text())["derivation"]["settings"]["training"]["learning_rate"])
        for path in root.glob("artifacts/operator/*/manifest.json")
    )


def test_a_wrong_sweep_is_told_with_exit_code_2_and_nothing_is_begun(tmp_path):
    done = ups("sweep", write(tmp_path, name="same"), "--root", tmp_path / "root")
    assert done.returncode == 2
    assert "some.yaml: name: 'same' names two members" in done.stderr
    assert not (tmp_path / "root").exists()


@pytest.mark.slow
def test_status_and_report_of_a_sweep_that_has_not_begun(tmp_path):
    root = tmp_path / "root"
    done = ups("sweep", "status", SWEEP, "--root", root, "--json")
    assert done.returncode == 0, done.stderr
    status = json.loads(done.stdout)
    assert status["running"] is False
    assert {member["state"] for member in status["members"]} == {"waiting"}
    planned = ups("sweep", SWEEP, "--plan", "--json", "--root", root)
    assert [stage["different"] for stage in json.loads(planned.stdout)["stages"]] == [1, 1, 1, 9]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_sweep_that_is_killed_in_a_training_goes_on_in_it_and_trains_every_member_once(
    sealed_root, tmp_path, monkeypatch
):
    """SIGKILL of the command: the kernel ends the training with a checkpoint, and the lock is free."""
    monkeypatch.setattr("marked_processes.LIMIT_SECONDS", 600.0)  # a whole member comes before
    root, marker = sealed_root, str(tmp_path)
    shutil.rmtree(root / "artifacts" / "operator")
    path = write(
        tmp_path,
        overrides={"tracking.wandb": "disabled", "execution.device": "cpu", "training.operator.steps": 300},
        finalists=1,
    )
    work = root / "artifacts" / ".work" / "operator"
    sweep = start_ups("sweep", path, "--root", root, **{MARKER_VARIABLE: marker})
    wait_until(
        lambda: (
            len(trainings(root)) == 1 and any(map(read_records, work.glob("*/output/logs/metrics.jsonl")))
        ),
        "a logged step of the second member",
        lambda: "no output",
    )
    sweep.send_signal(signal.SIGKILL)
    sweep.communicate()
    wait_until(lambda: not marked(marker), "the training to end", lambda: str(marked(marker)))
    assert any(work.glob("*/checkpoints/step-*"))

    done = ups("sweep", path, "--root", root)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("operator resumes at step") == 1
    assert trainings(root) == ["0.001", "0.002", "0.004"]
    assert done.stderr.count("operator 1/300") == 1, "the third alone began at its first step"
    result = ups("sweep", "report", path, "--root", root, "--json")
    ranking = json.loads(result.stdout)["ranking"]
    assert sorted(row["state"] for row in ranking) == ["finished", "trained", "trained"]
    assert ranking[0]["state"] == "finished", "the best has run the whole chain"
    assert ranking[0]["test"]["burgers1d"][1] > 0
    assert "data:image/svg+xml" in Path(json.loads(result.stdout)["report"]).read_text()

    again = ups("sweep", path, "--root", root)
    assert again.returncode == 0
    assert "member 1 of" not in again.stderr, "all is done"


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_successive_halving_pauses_exactly_and_what_was_ended_can_be_continued(tmp_path):
    """A member that went on has the bits of one that was never paused."""
    root, plain = tmp_path / "root", tmp_path / "plain"
    steps = {"training.operator.steps": 600, "training.operator.validate_every": 50}
    overrides = {"tracking.wandb": "disabled", "execution.device": "cpu", **steps}
    path = write(tmp_path, overrides=overrides, stop={"successive_halving": {"first": 100, "factor": 3}})
    done = ups("sweep", path, "--root", root)
    assert done.returncode == 0, done.stderr
    status = json.loads(ups("sweep", "status", path, "--root", root, "--json").stdout)["members"]
    assert sorted(one["state"] for one in status) == ["stopped", "stopped", "trained"]
    assert all(100 <= one["step"] < 600 for one in status if one["state"] == "stopped")
    assert len(list((root / "artifacts" / ".work" / "operator").glob("*/checkpoints/step-*"))) >= 2

    ended = next(one for one in status if one["state"] == "stopped")
    for place in (root, plain):
        run = ups(*shlex.split(ended["command"])[1:], "--root", place)
        assert run.returncode == 0, run.stderr
        assert ("resumes at step" in run.stdout) is (place == root)
    contents = [
        {
            json.loads(manifest.read_text())["content"]
            for manifest in place.glob("artifacts/operator/*/manifest.json")
        }
        for place in (root, plain)
    ]
    assert contents[1] <= contents[0]
