"""Gates in a flow: the run fails with the verdict in its message, and the stages stay as they are."""

import pytest
from orchestra import STAGES, Orchestra

pytestmark = pytest.mark.slow


def test_results_that_do_not_pass_fail_the_run_and_not_the_stages(built: Orchestra):
    flow = built.flow("gates.test=[{model: operator, metric: mass_drift, at_most: 1e-9}]")
    output, _ = flow.communicate()
    assert flow.returncode == 7, output
    flow_run = built.latest_flow_run()
    assert flow_run["state_name"] == "Failed"
    assert "operator mass_drift of burgers1d is " in flow_run["state"]["message"]
    tasks = built.task_runs(flow_run)
    assert {tasks[stage]["state_name"] for stage in STAGES} == {"Cached"}
    assert (tasks["publish"]["state_name"], tasks["test-gates"]["state_name"]) == ("Completed", "Failed")
    assert tasks["test-gates"]["run_count"] == 1, "the same numbers fail the second time too"
    [shown] = built.api("POST", "/artifacts/filter", artifacts={"key": {"any_": ["burgers-tiny-test-gates"]}})
    assert '"verdict": "failed"' in shown["data"]


def test_trainings_that_do_not_pass_are_not_evaluated(built: Orchestra):
    flow = built.flow("gates.validation=[{stage: operator, at_most: 1e-9}]")
    output, _ = flow.communicate()
    assert flow.returncode == 7, output
    flow_run = built.latest_flow_run()
    assert "operator validation_relative_l2 is " in flow_run["state"]["message"]
    tasks = built.task_runs(flow_run)
    assert {tasks[stage]["state_name"] for stage in STAGES[:-1]} == {"Cached"}
    assert tasks["validation-gates"]["state_name"] == "Failed"
    assert not {"evaluate", "publish"} & tasks.keys()
