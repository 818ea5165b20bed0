"""The tasks' decisions, without a server."""

import json

import httpx
import pytest
from prefect.logging import disable_run_logger
from prefect.states import Crashed, Failed

from tasks.progress import SECONDS_BETWEEN_UPDATES, Throttle
from tasks.publish import result_rows
from tasks.stage import worth_a_retry
from ups import errors

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
        record("diffusion", "crps", None),
    ]
    rows = result_rows(records)
    assert rows == [
        {"model": "persistence", "PDEBench nRMSE": 1.235, "CRPS": None, "s / trajectory": 5.432e-06},
        {"model": "diffusion", "PDEBench nRMSE": 0.5, "CRPS": None, "s / trajectory": None},
    ]
    json.dumps(rows, allow_nan=False)


def test_a_table_of_several_problems_names_them_and_leaves_single_fields_out():
    records = [
        record("operator", "pdebench_nrmse", 0.25, problem="darcy"),
        record("operator", "pdebench_nrmse", 0.5, problem="compressible"),
        record("operator", "pdebench_nrmse", 0.75, problem="compressible", field="density"),
    ]
    assert result_rows(records) == [
        {"problem": "darcy", "model": "operator", "PDEBench nRMSE": 0.25},
        {"problem": "compressible", "model": "operator", "PDEBench nRMSE": 0.5},
    ]
