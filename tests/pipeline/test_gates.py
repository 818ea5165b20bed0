"""What a run found, held against its gates."""

import pytest

from ups.config.gates import Gates
from ups.errors import GateError
from ups.pipeline.gates import judge_results, judge_trainings, require_passed


def gates(**kinds) -> Gates:
    return Gates.model_validate(kinds)


def gate(metric="mass_drift", model="operator", **limits):
    return {"model": model, "metric": metric} | limits


def record(value, *, metric="mass_drift", model="operator", problem="burgers1d", field=None):
    return {"problem": problem, "model": model, "metric": metric, "field": field, "value": value}


@pytest.mark.parametrize(
    ("value", "limits", "passed"),
    [
        (0.1, {"at_most": 0.1}, True),
        (0.1001, {"at_most": 0.1}, False),
        (0.9, {"at_least": 0.9}, True),
        (0.89, {"at_least": 0.9}, False),
        (0.89, {"at_least": 0.8, "at_most": 0.9}, True),
        (0.95, {"at_least": 0.8, "at_most": 0.9}, False),
        (None, {"at_most": 1e9}, False),
        (None, {"at_least": -1e9}, False),
    ],
)
def test_limits_belong_to_what_passes_and_what_is_not_finite_does_not(value, limits, passed):
    [verdict] = judge_results(gates(test=[gate(**limits)]), [record(value)])
    assert (verdict.value, verdict.passed) == (value, passed)


def test_a_metric_that_the_table_lacks_does_not_pass():
    asked = gates(test=[gate("coverage_90", at_most=2.0), gate(at_most=1.0)])
    missing, there = judge_results(asked, [record(0.5)])
    assert (missing.value, missing.passed, there.passed) == (None, False, True)
    with pytest.raises(GateError) as failure:
        require_passed([missing, there])
    assert str(failure.value) == "gates: operator coverage_90 of burgers1d is missing, not at most 2"
    assert failure.value.exit_code == 7


def test_without_a_problem_a_gate_is_of_each():
    table = [record(0.5, problem="a"), record(2.0, problem="b"), record(0.1, problem="b", model="diffusion")]
    each = judge_results(gates(test=[gate(at_most=1.0)]), table)
    assert [(verdict.problem, verdict.passed) for verdict in each] == [("a", True), ("b", False)]
    [named] = judge_results(gates(test=[gate(at_most=1.0, problem="a")]), table)
    assert (named.problem, named.passed) == ("a", True)


def test_of_several_fields_the_mean_counts_or_else_each():
    table = [
        record(0.5, metric="trajectory_relative_l2"),
        record(0.9, metric="trajectory_relative_l2", field="velocity"),
        record(0.3, metric="crps", field="density"),
        record(0.9, metric="crps", field="velocity"),
    ]
    asked = gates(test=[gate("trajectory_relative_l2", at_most=0.6), gate("crps", at_most=0.6)])
    found = [(verdict.metric, verdict.field, verdict.passed) for verdict in judge_results(asked, table)]
    assert found == [
        ("trajectory_relative_l2", None, True),
        ("crps", "density", True),
        ("crps", "velocity", False),
    ]


def test_a_training_is_judged_by_its_validation_error_and_by_that_of_a_problem():
    asked = [{"stage": "operator", "at_most": 0.2}, {"stage": "diffusion", "at_most": 0.2}]
    asked += [{"stage": "operator", "at_most": 0.2, "problem": "b"}]
    several = {
        "validation_relative_l2": 0.15,
        "validation_relative_l2/a": 0.05,
        "validation_relative_l2/b": 0.25,
    }
    summaries = {"operator": several, "diffusion": {"validation_loss": 0.1, "validation_loss_raw": 9.0}}
    verdicts = judge_trainings(gates(validation=asked), summaries)
    assert [verdict.passed for verdict in verdicts] == [True, True, False]
    # Of a single problem, the mean is its own.
    alone = judge_trainings(gates(validation=asked[2:]), {"operator": {"validation_relative_l2": 0.15}})
    assert [verdict.value for verdict in alone] == [0.15]
    nothing = judge_trainings(gates(validation=asked[:1]), {"operator": {}})
    assert [verdict.passed for verdict in nothing] == [False]


def test_all_that_fails_is_told():
    table = [record(0.5), record(0.25, metric="crps")]
    verdicts = judge_results(gates(test=[gate(at_most=0.1), gate("crps", at_least=0.5, at_most=0.75)]), table)
    with pytest.raises(GateError) as failure:
        require_passed(verdicts)
    assert str(failure.value) == (
        "gates: operator mass_drift of burgers1d is 0.5, not at most 0.1; "
        "operator crps of burgers1d is 0.25, not at least 0.5 and at most 0.75"
    )
    require_passed([])
