"""The tasks' decisions, without a server."""

import json
from types import SimpleNamespace
from uuid import uuid4

import httpx
import pytest
from prefect.logging import disable_run_logger
from prefect.states import Crashed, Failed

from tasks import retries
from tasks.progress import SECONDS_BETWEEN_UPDATES, Throttle, progress_text
from tasks.publish import TABLES, TABLES_OF_SEEDS, _with_pictures, result_rows
from tasks.retries import while_it_progresses, worth_a_retry
from ups import errors
from ups.metric_labels import METRICS

KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, errors.UpsError) and kind is not errors.UpsError
]


@pytest.mark.parametrize("kind", KINDS)
def test_only_what_may_pass_by_itself_is_tried_again(kind):
    state = Failed(data=kind("what", where="where", fix="how"))
    expected = kind in {errors.StorageError, errors.Interrupted, errors.ProcessKilled}
    assert worth_a_retry(None, None, state) is expected


@pytest.mark.parametrize(
    "error", [ValueError("a mistake of ours"), OSError(28, "No space left"), MemoryError()]
)
def test_what_we_have_not_classified_is_not_tried_again(error):
    assert worth_a_retry(None, None, Failed(data=error)) is False


def test_a_state_without_an_error_is_not_tried_again():
    assert worth_a_retry(None, None, Crashed(message="by whatever")) is False


@pytest.mark.parametrize(
    ("steps", "tries"),
    [
        ([0, 0, 0], 3),
        ([40, 40, 40], 3),
        ([10, 20, 30, 40, 50, 60, 70, 80, 90, 100], 11),
        ([10, 10, 20, 20, 20], 5),
        ([50, 40, 45], 3),
    ],
    ids=["never began", "stuck", "killed ten times", "stuck after a while", "less than before"],
)
def test_tries_are_counted_anew_when_one_got_further(monkeypatch, steps, tries):
    """Each value is the step of the last checkpoint when a try was killed; beyond the last, the stage would end."""
    reached = iter(steps)

    class Reached:
        def progress(self, name: str) -> int:
            assert name == "cache_encode"
            return next(reached)

    monkeypatch.setattr(retries.Run, "of", lambda settings: Reached())
    monkeypatch.setattr(retries, "_furthest", {})
    context = SimpleNamespace(parameters={"run": {}})
    monkeypatch.setattr(retries, "TaskRunContext", SimpleNamespace(get=lambda: context))
    task, run = SimpleNamespace(name="cache-encode"), SimpleNamespace(id=uuid4())
    killed = Failed(data=errors.ProcessKilled("by somebody"))
    made = 1
    with disable_run_logger():
        while made <= len(steps) and while_it_progresses(task, run, killed):
            made += 1
    assert made == tries


def test_a_wrong_configuration_is_not_tried_again_however_far_it_got():
    state = Failed(data=errors.ConfigurationError("what"))
    assert while_it_progresses(SimpleNamespace(name="operator"), SimpleNamespace(id=uuid4()), state) is False


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_progress_is_sent_once_a_second_and_at_the_end():
    sent: list[int] = []
    clock = Clock()
    throttle = Throttle(lambda record: sent.append(record["step"]), clock)
    for step in range(1, 250):
        throttle.show({"step": step})
        clock.now += SECONDS_BETWEEN_UPDATES / 100
    throttle.flush()
    throttle.flush()
    assert sent == [1, 101, 201, 249]


@pytest.mark.parametrize("error", [httpx.ConnectError("no answer"), ValueError("nan"), AssertionError()])
def test_what_the_display_raises_costs_the_display_and_not_the_training(error):
    asked: list[int] = []

    def send(record: dict) -> None:
        asked.append(record["step"])
        raise error

    clock = Clock()
    throttle = Throttle(send, clock)
    with disable_run_logger():
        for step in range(200):
            throttle.show({"step": step})
            clock.now += SECONDS_BETWEEN_UPDATES
        throttle.flush()
    assert asked == [0, 60, 120, 180, 199]


def record(
    model: str, metric: str, value: float | None, *, problem: str = "burgers1d", field: str | None = None
):
    return {"problem": problem, "model": model, "metric": metric, "field": field, "value": value}


def test_a_table_has_one_row_per_model_and_only_columns_that_were_measured():
    records = [
        record("persistence", "pdebench_nrmse", 1.23456),
        record("persistence", "seconds_per_trajectory", 5.4321e-06),
        record("diffusion", "pdebench_nrmse", 0.5),
        record("diffusion", "crps", 0.25),
        record("diffusion", "pdebench_nrmse", 0.75, field="density"),
    ]
    rows = result_rows(records, TABLES["accuracy"])
    assert rows == [
        {"model": "persistence", "PDEBench nRMSE": 1.23, "s / trajectory": 5.43e-06},
        {"model": "diffusion", "PDEBench nRMSE": 0.5, "s / trajectory": None},
    ]
    json.dumps(rows, allow_nan=False)
    assert result_rows(records, TABLES["uncertainty"]) == [{"model": "diffusion", "CRPS": 0.25}]


@pytest.mark.parametrize("tables", [TABLES, TABLES_OF_SEEDS])
def test_every_column_of_the_terminal_is_in_one_table(tables):
    groups = [group for of_table in tables.values() for group in of_table]
    assert len(groups) == len(set(groups))
    assert {metric.group for metric in METRICS if metric.heading} == set(groups)


def test_a_progress_bar_says_what_it_is_of_and_how_it_goes(tmp_path):
    run = SimpleNamespace(configuration=SimpleNamespace(name="demo", seed=3), directory=tmp_path / "a run")
    told = {"step": 5, "steps": 20, "loss": 0.123456, "validation_relative_l2": 0.5, "L_forward": 1.0}
    assert progress_text("operator", run, told) == (
        "operator of demo, seed 3: step 5 of 20, loss 0.123, validation relative L2 0.5. Run a run"
    )


def test_a_report_is_shown_with_its_pictures(tmp_path):
    (tmp_path / "figures" / "x").mkdir(parents=True)
    (tmp_path / "figures" / "x" / "space_time.png").write_bytes(b"picture")
    report = tmp_path / "report.md"
    report.write_text("before ![Truth](figures/x/space_time.png) after [1, 2](elsewhere)")
    assert _with_pictures(report) == (
        "before ![Truth](data:image/png;base64,cGljdHVyZQ==) after [1, 2](elsewhere)"
    )
