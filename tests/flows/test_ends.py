"""How flows and their long tasks end, without a server."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from prefect import Flow
from prefect.exceptions import TerminationSignal
from prefect.states import Completed

from flows import nightly_benchmark, sweep, validate_optimizations
from flows.burgers_upt import burgers_upt
from flows.experiment import Experiment
from flows.nightly_benchmark import Night
from flows.pdebench_upt import pdebench_upt
from flows.sweep import SweepFile
from flows.validate_optimizations import Comparison
from tasks import comparison
from tasks.stopping import end_left_behind, result_of, say_what_was_kept
from tasks.sweep import cancel_members

COMPARED = Comparison(
    baseline=Experiment(config="burgers_tiny"),
    optimised=Experiment(config="burgers_tiny", overrides={"training.operator.accumulation": 2}),
)
NIGHT, SWEEP = nightly_benchmark.nightly_benchmark, sweep.sweep
COMPARISON = validate_optimizations.validate_optimizations


class Begun(Exception):
    pass


@pytest.mark.parametrize("flow", [burgers_upt, pdebench_upt, NIGHT, SWEEP, COMPARISON], ids=lambda f: f.name)
def test_no_flow_leaves_tasks_that_look_alive(flow: Flow[Any, Any]):
    assert flow.on_crashed_hooks == [end_left_behind]
    before = [cancel_members] if flow is SWEEP else []
    assert flow.on_cancellation_hooks == [*before, say_what_was_kept]


@pytest.mark.parametrize(
    ("module", "flow", "asked"),
    [
        (nightly_benchmark, NIGHT, Night()),
        (sweep, SWEEP, SweepFile(file="tiny")),
        (validate_optimizations, COMPARISON, COMPARED),
    ],
    ids=["night", "sweep", "comparison"],
)
def test_every_flow_takes_secrets_and_ends_what_was_left_before_all_else(monkeypatch, module, flow, asked):
    def begin() -> None:
        raise Begun

    monkeypatch.setattr(module, "begin", begin)
    with pytest.raises(Begun):
        flow.fn(asked)


def arm_that_ends_by(monkeypatch, signal: int | None, *, told: bool) -> Any:
    def train(*_: Any, **__: Any) -> Any:
        if signal is not None:
            raise TerminationSignal(signal)
        return SimpleNamespace(to_json=lambda: {"seed": 7})

    monkeypatch.setattr(comparison, "train", train)
    monkeypatch.setattr(comparison, "told_to_end", lambda: told)
    monkeypatch.setattr(comparison, "get_run_logger", lambda: SimpleNamespace(info=print))
    arm = {"name": "a", "config": "configs/burgers_tiny.yaml", "overrides": {"execution.device": "cpu"}}
    return comparison.train_arm.fn(arm, 7, "operator", "some", "a root")


def test_a_training_of_a_comparison_that_is_cancelled_says_so_and_ends_its_flow(monkeypatch):
    assert result_of(arm_that_ends_by(monkeypatch, None, told=False)) == {"seed": 7}
    ended = arm_that_ends_by(monkeypatch, 15, told=True)
    assert ended.is_cancelled()
    assert "checkpoint" in ended.message
    with pytest.raises(TerminationSignal):
        result_of(ended)


def test_a_training_of_a_comparison_on_a_machine_that_shuts_down_is_not_cancelled(monkeypatch):
    with pytest.raises(TerminationSignal):
        arm_that_ends_by(monkeypatch, 15, told=False)


def test_what_a_task_has_made_is_the_data_of_its_state():
    assert result_of(Completed(data=3)) == 3


def test_what_a_night_builds_before_it_takes_the_time_has_a_slot_of_the_gpu(monkeypatch):
    done: list[str] = []

    @contextmanager
    def gpu(*, needed: bool) -> Iterator[None]:
        assert needed
        done.append("slot")
        yield
        done.append("free")

    monkeypatch.setattr(nightly_benchmark, "gpu", gpu)
    on_a_gpu = SimpleNamespace(execution=SimpleNamespace(device="cuda"))
    monkeypatch.setattr(nightly_benchmark, "resolve", lambda _: on_a_gpu)
    monkeypatch.setattr(nightly_benchmark.Run, "start", lambda *_: None)
    monkeypatch.setattr(nightly_benchmark, "run_all", lambda *_, **__: done.append("plain"))
    monkeypatch.setattr(nightly_benchmark, "burgers_upt", lambda _: done.append("flow"))
    nightly_benchmark._cached_flow_ratio()
    assert done == ["slot", "plain", "free", "flow", "plain"]
