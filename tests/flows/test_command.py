"""`python -m flows`: its words, its exit codes, its temporary server, and what it tries again."""

import json
import os
import signal
from pathlib import Path

import pytest
from orchestra import STAGES, Orchestra, clean_environment, start_flow, wait_for


def test_a_wrong_configuration_starts_no_server(tmp_path):
    home = tmp_path / "prefect"
    flow = start_flow(clean_environment() | {"PREFECT_HOME": str(home)}, "traning.x=1")
    output, _ = flow.communicate()
    assert flow.returncode == 2
    assert "did you mean 'training'?" in output
    assert not home.exists()


@pytest.mark.slow
def test_a_server_that_does_not_answer_is_named(tmp_path):
    url = "http://127.0.0.1:9/api"  # the port of the discard service, which nobody offers
    flow = start_flow(clean_environment() | {"PREFECT_HOME": str(tmp_path), "PREFECT_API_URL": url})
    output, _ = flow.communicate()
    assert flow.returncode == 3
    assert url in output
    assert "unset PREFECT_API_URL" in output
    assert "Traceback" not in output


@pytest.mark.slow
def test_a_temporary_server_shows_what_is_sealed_as_cached(built: Orchestra, tmp_path):
    """Its Prefect home is new: it has no record of any stage, and the store alone decides."""
    flow = built.flow("evaluation.seed=7", PREFECT_API_URL=None, PREFECT_HOME=str(tmp_path / "prefect"))
    output, _ = flow.communicate()
    assert flow.returncode == 0, output
    assert "Task run 'evaluate' - Finished in state Completed" in output
    for stage in STAGES[:-1]:
        assert f"Task run '{stage}' - Finished in state Cached" in output
    *_, last_row = (line for line in output.splitlines() if line.startswith("consistency_2"))
    assert "0." in last_row, "the result table"
    [report] = [line for line in output.splitlines() if line.startswith("report: ")]
    assert Path(report.removeprefix("report: ")).is_file()


@pytest.mark.slow
def test_where_all_is_sealed_no_server_is_started_to_show_it(built: Orchestra, tmp_path):
    home = tmp_path / "prefect"
    flow = built.flow(PREFECT_API_URL=None, PREFECT_HOME=str(home))
    output, _ = flow.communicate()
    assert flow.returncode == 0, output
    assert "no Prefect server stands" in output
    assert "Task run" not in output
    assert sum(" cached  " in line for line in output.splitlines()) == len(STAGES)
    assert any(line.startswith("consistency_2") for line in output.splitlines()), "the result table"
    assert not list(home.glob("*.db")), "no server has made its database"


@pytest.mark.slow
def test_a_killed_rank_is_tried_again_and_resumes(built: Orchestra):
    before = built.checkpoints("consistency")
    flow = built.flow("training.consistency.steps=300")
    [rank] = wait_for(
        "a checkpoint",
        lambda: built.checkpoints("consistency")[-1:] != before[-1:] and built.stage_processes("rank"),
    )
    os.kill(rank, signal.SIGKILL)
    output, _ = flow.communicate()
    assert flow.returncode == 0, output
    assert "rank 0 by SIGKILL" in output
    assert "consistency resumes at step" in output
    task = built.task_runs(built.latest_flow_run())["consistency"]
    assert (task["state_name"], task["run_count"]) == ("Completed", 2)
    records = [json.loads(line) for line in (built.latest_run() / "metrics.jsonl").read_text().splitlines()]
    steps = [record["step"] for record in records if record["stage"] == "consistency" and "loss" in record]
    assert steps == sorted(set(steps)), "a stage that is tried again records each step once"


@pytest.mark.slow
def test_a_loss_that_is_not_finite_is_not_tried_again(built: Orchestra):
    flow = built.flow("training.consistency.learning_rate=1e9")
    output, _ = flow.communicate()
    assert flow.returncode == 1, output
    assert "fix: lower the learning rate" in output
    assert "prefect/task_engine.py" not in output, "the message is not buried under Prefect's frames"
    task = built.task_runs(built.latest_flow_run())["consistency"]
    assert (task["state_name"], task["run_count"]) == ("Failed", 1)
