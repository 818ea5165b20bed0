"""A sweep's rounds, journal and ranking; trainings are played here by curves that are known."""

import json
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from command_line import CONFIGS, TINY

from ups.artifacts import Store
from ups.artifacts.journal import sole_writer
from ups.config.sweep import Member
from ups.errors import ConfigurationError, GateError, PreflightError, StageError
from ups.metric_labels import HEADLINE
from ups.pipeline.sweeps.here import one_after_the_other
from ups.pipeline.sweeps.plan import work_by_stage
from ups.pipeline.sweeps.sweep import DIVERGED, ENDED, FAILED, JOURNAL, PAUSED, Leg, SweepRun, _test_errors

RATE = "training.operator.learning_rate"
STEPS = 40


def write(directory: Path, count: int = 9, **sweep: Any) -> Path:
    path = directory / "some.yaml"
    values = {
        "base": str(TINY),
        "overrides": {"training.operator.steps": STEPS, "execution.device": "cpu"},
        "grid": {RATE: [number / 1000 for number in range(1, count + 1)]},
        "name": f"{{{RATE}}}",
    }
    path.write_text(yaml.safe_dump(values | sweep))
    return path


@dataclass
class Stage:
    """Trainings whose errors are the rates of their members, over the step at which they are."""

    reached: dict[str, int] = field(default_factory=dict)
    evaluated: set[str] = field(default_factory=set)
    legs: list[list[tuple[str, int | None]]] = field(default_factory=list)
    fails: dict[str, str] = field(default_factory=dict)
    breaks_at: str = ""

    def run(self, sweep: SweepRun, legs: list[Leg]) -> None:
        self.legs.append([(leg.member.name, leg.pause) for leg in legs])
        for leg in legs:
            name = leg.member.name
            if name == self.breaks_at:
                raise KeyboardInterrupt
            if name in self.fails:
                sweep.note(self.fails[name], leg.member, message="a reason")
                continue
            if leg.until is None:
                self.evaluated.add(name)
            self.reached[name] = leg.pause or STEPS
            sweep.note(PAUSED if leg.pause else ENDED, leg.member)

    def records(self, member: Member) -> list[dict[str, Any]]:
        error = member.configuration.training.operator.learning_rate
        steps = range(10, self.reached.get(member.name, 0) + 1, 10)
        return [{"step": step, "steps": STEPS, "validation_relative_l2": error / step} for step in steps]


@pytest.fixture
def played(monkeypatch) -> Stage:
    stage = Stage()

    def artifact(member: Member) -> Any:
        whole = stage.reached.get(member.name) == STEPS
        return SimpleNamespace(manifest=SimpleNamespace(seconds=7.0)) if whole else None

    monkeypatch.setattr(SweepRun, "_records", lambda _, member: stage.records(member))
    monkeypatch.setattr(SweepRun, "_ranked", lambda _, member: ("key", artifact(member)))
    monkeypatch.setattr(SweepRun, "_is_done", lambda _, member: artifact(member) is not None)
    monkeypatch.setattr(
        SweepRun, "_evaluation", lambda _, member: object() if member.name in stage.evaluated else None
    )
    monkeypatch.setattr("ups.pipeline.sweeps.sweep._test_errors", lambda _: {"burgers1d": (0.5, 0.1)})
    return stage


HALVING = {"stop": {"successive_halving": {"first": 10, "factor": 3}}}


def test_successive_halving_promotes_the_best_and_the_finalist_runs_the_whole_chain(played, tmp_path):
    run = SweepRun(write(tmp_path, **HALVING, finalists=1), tmp_path)
    run.conduct(played.run)
    assert played.legs == [
        [(f"0.00{n}", 10) for n in range(1, 10)],
        [("0.001", 30), ("0.002", 30), ("0.003", 30)],
        [("0.001", None)],
        [("0.001", None)],
    ]
    assert played.evaluated == {"0.001"}
    rows = run.ranking()
    assert [(row["name"], row["state"], row["step"]) for row in rows[:4]] == [
        ("0.001", "finished", 40), ("0.002", "stopped", 30), ("0.003", "stopped", 30), ("0.004", "stopped", 10),
    ]  # fmt: skip
    assert rows[0]["error"] == pytest.approx(0.001 / 40)
    assert rows[0]["test"] == {"burgers1d": (0.5, 0.1)}
    assert rows[3]["message"] == "not among the best 3 at step 10"
    played.legs.clear()
    SweepRun(run.file, tmp_path).conduct(played.run)
    assert played.legs == [], "all is done"


def test_a_sweep_that_broke_off_goes_on_where_it_was(played, tmp_path):
    path = write(tmp_path, **HALVING)
    played.breaks_at = "0.005"
    with pytest.raises(KeyboardInterrupt):
        SweepRun(path, tmp_path).conduct(played.run)
    with (SweepRun(path, tmp_path).directory / JOURNAL).open("a") as journal:
        journal.write('{"event": "torn')
    played.breaks_at, before = "", len(played.legs)
    run = SweepRun(path, tmp_path)
    run.conduct(played.run)
    assert played.legs[before] == [(f"0.00{n}", 10) for n in range(5, 10)]
    assert [len(legs) for legs in played.legs[before + 1 :]] == [3, 1]
    assert "torn" not in (run.directory / JOURNAL).read_text()


def test_what_failed_is_tried_again_and_what_diverged_is_not(played, tmp_path):
    path = write(tmp_path, 3)
    played.fails = {"0.001": DIVERGED, "0.002": FAILED}
    run = SweepRun(path, tmp_path)
    run.conduct(played.run)
    with pytest.raises(StageError, match=r"1 of 3 members failed: 0\.002"):
        run.require_done()
    assert [(row["name"], row["state"]) for row in run.ranking()] == [
        ("0.003", "trained"), ("0.001", "diverged"), ("0.002", "failed"),
    ]  # fmt: skip
    played.fails.clear()
    played.legs.clear()
    again = SweepRun(path, tmp_path)
    again.conduct(played.run)
    again.require_done()
    assert played.legs == [[("0.002", None)]]
    assert again.launches(again.members[1]) == 2


def test_a_training_above_the_median_is_ended_at_its_newest_validation_but_not_at_its_last(played, tmp_path):
    run = SweepRun(write(tmp_path, 5, stop="median"), tmp_path)
    *others, last = run.members
    leg = Leg(last, "operator")
    played.reached = {member.name: 40 for member in others[:3]} | {last.name: 10}
    assert run.verdict(leg) == ("stopped", 10, "above the median of the others at step 10")
    assert run.verdict(Leg(others[0], "operator")) is None
    played.reached[last.name] = 40
    assert run.verdict(leg) is None, "it is complete"
    played.reached = {member.name: 40 for member in others[:2]} | {last.name: 10}
    assert run.verdict(leg) is None, "too few to compare with"


def test_seeds_count_as_one_configuration_with_an_interval(played, tmp_path):
    run = SweepRun(write(tmp_path, 2, seeds=3), tmp_path)
    run.conduct(played.run)
    first, second = run.ranking()
    assert (first["name"], first["seeds"]) == ("0.001", 3)
    assert first["half_width"] == pytest.approx(0.0)
    assert second["error"] == pytest.approx(0.002 / 40)


def test_test_errors_are_those_of_the_operator_with_the_interval_of_their_mean(tmp_path):
    of_operator = {"problem": "a", "model": "operator", "metric": HEADLINE, "field": None, "interval": None}
    mean = of_operator | {"value": 0.5, "standard_error": 0.1}
    others = [mean | {"field": "u"}, mean | {"model": "persistence"}, mean | {"metric": "mass_drift"}]
    unknown = of_operator | {"problem": "b", "value": None, "standard_error": None}
    sure = of_operator | {"problem": "c", "value": 0.5, "standard_error": None}
    (tmp_path / "metrics.json").write_text(json.dumps([*others, mean, unknown, sure]))
    found = _test_errors(SimpleNamespace(path=tmp_path))
    assert found == {"a": (0.5, pytest.approx(0.196)), "b": (None, None), "c": (0.5, None)}


def test_what_a_member_costs_is_by_its_rate(played, tmp_path):
    overrides = {"training.operator.steps": STEPS, "execution.device": "cpu"}
    priced = overrides | {"resources.hourly_rate_usd": 3600}
    for settings, cost in ((overrides, None), (priced, 7.0)):
        run = SweepRun(write(tmp_path, 2, overrides=settings), tmp_path)
        run.conduct(played.run)
        assert [standing["cost_usd"] for standing in run.standings()] == [cost, cost]


def test_one_process_at_a_time_conducts_a_sweep(played, tmp_path, monkeypatch):
    monkeypatch.setattr("ups.pipeline.sweeps.sweep._WAIT_SECONDS", 0.0)
    path = write(tmp_path, 2)
    outer = SweepRun(path, tmp_path)

    def second(sweep: SweepRun, legs: list[Leg]) -> None:
        assert SweepRun(path, tmp_path).is_running()
        with pytest.raises(PreflightError, match="another process is writing it"):
            SweepRun(path, tmp_path).conduct(played.run)
        played.run(sweep, legs)

    outer.conduct(second)
    assert not outer.is_running()
    assert len(played.legs) == 1


def test_a_sweep_that_begins_while_somebody_looks_at_it_waits_for_a_moment(played, tmp_path):
    run = SweepRun(write(tmp_path, 2), tmp_path)
    looked = threading.Event()

    def look() -> None:
        with sole_writer(run.directory / JOURNAL):
            looked.set()
            time.sleep(0.3)

    looking = threading.Thread(target=look)
    looking.start()
    looked.wait()
    run.conduct(played.run)
    looking.join()
    run.require_done()


def test_more_finalists_are_the_same_sweep_and_another_value_is_not(tmp_path):
    first = SweepRun(write(tmp_path, 2), tmp_path).name
    assert SweepRun(write(tmp_path, 2, finalists=2, at_once=1), tmp_path).name == first
    overrides = {"training.operator.steps": STEPS, "execution.device": "cpu", "hooks.always": "date"}
    assert SweepRun(write(tmp_path, 2, overrides=overrides), tmp_path).name == first
    assert SweepRun(write(tmp_path, 2, stop="median"), tmp_path).name != first
    assert SweepRun(write(tmp_path, 3), tmp_path).name != first


def test_members_that_validate_on_other_trajectories_do_not_compare(tmp_path):
    counts = [{"train": 16, "validation": 4, "test": 4}, {"train": 16, "validation": 5, "test": 4}]
    path = write(tmp_path, grid={"data.trajectories": counts}, name="{data.trajectories}")
    with pytest.raises(ConfigurationError, match="validates on other trajectories than"):
        SweepRun(path, tmp_path).plan()
    counts[1] |= {"train": 17, "validation": 4}
    path = write(tmp_path, grid={"data.trajectories": counts}, name="{data.trajectories}")
    assert len(SweepRun(path, tmp_path).plan()) == 2


def test_the_plan_counts_what_members_share_once(tmp_path):
    run = SweepRun(CONFIGS / "sweeps" / "tiny.yaml", tmp_path)
    work = work_by_stage(run, run.plan())
    assert {one.stage: (one.members, one.different, one.hits) for one in work} == {
        "download": (9, 1, 0), "autoencoder": (9, 1, 0), "cache_encode": (9, 1, 0), "operator": (9, 9, 0),
    }  # fmt: skip
    assert not list(Store(tmp_path)), "a plan builds nothing"


def test_members_that_have_ended_without_a_training_in_this_root_are_not_done(played, tmp_path):
    """Their workers have another UPS_ROOT."""
    run = SweepRun(write(tmp_path, 3), tmp_path)

    def elsewhere(sweep: SweepRun, legs: list[Leg]) -> None:
        for leg in legs:
            sweep.note(ENDED, leg.member)
        played.reached["0.002"] = STEPS

    run.conduct(elsewhere)
    with pytest.raises(StageError, match=r"2 of 3 members have ended, .*: 0\.001, 0\.003\n  fix: .*UPS_ROOT"):
        run.require_done()
    played.reached |= dict.fromkeys(("0.001", "0.003"), STEPS)
    run.require_done()


def test_a_member_that_misses_a_gate_has_not_failed_and_the_others_go_on(played, tmp_path, monkeypatch):
    def run_all(_run: Any, **_: Any) -> None:
        raise GateError("operator mass_drift is 1, not at most 0", where="gates")

    monkeypatch.setattr("ups.pipeline.sweeps.here.Run.start", lambda *_, **__: None)
    monkeypatch.setattr("ups.pipeline.sweeps.here.run_all", run_all)
    run, said = SweepRun(write(tmp_path, 3), tmp_path), list[str]()
    run.conduct(one_after_the_other(said.append))
    assert said[-1] == "0.003: ended: gates: operator mass_drift is 1, not at most 0"
    assert [(row["name"], row["state"]) for row in run.ranking()] == [
        (f"0.00{n}", "not passed") for n in (1, 2, 3)
    ]
    assert {row["message"] for row in run.ranking()} == {"gates: operator mass_drift is 1, not at most 0"}
    run.require_done()
