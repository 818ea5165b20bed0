"""Nights of the benchmark: with measurements that are made up, and, slow, with real ones that somebody has made worse."""

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from command_line import ups

from ups.artifacts.journal import read_journal
from ups.commands.main import main
from ups.config import load_configuration
from ups.errors import ConfigurationError, IntegrityError, RegressionError
from ups.pipeline.nightly import night as nights
from ups.pipeline.nightly.judge import LEAST_NIGHTS
from ups.pipeline.nightly.night import NightResult, default_history, run_night
from ups.pipeline.nightly.report import write_report
from ups.pipeline.nightly.suite import FULL, MEASUREMENTS, QUICK
from ups.pipeline.provenance import environment, git

USUAL = {"operator error": 0.5, "training step": 2.0, "generator burgers1d nu=0.01": 0.25}
CONFIGURATION = load_configuration(QUICK.configuration, {"execution.device": "cpu"})
ABOUT = environment()
SECTION = {measurement.name: measurement.section for measurement in MEASUREMENTS}


class Bench:
    """Nights with values that are made up, in place of the processes that measure."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.history = root, default_history(QUICK, root)
        self.measured: list[list[str]] = []
        self.values: Callable[[int], dict[str, float]] = lambda _call: USUAL
        monkeypatch.setattr(nights, "_data", self._data)
        monkeypatch.setattr(nights, "run_tool", self._measure)
        monkeypatch.setattr(nights, "environment", lambda: ABOUT)

    def _data(self, *_: object) -> object:
        return SimpleNamespace(
            configuration=CONFIGURATION,
            store=SimpleNamespace(artifacts=self.root / "artifacts"),
            built={"download": SimpleNamespace(artifact=SimpleNamespace(path=self.root / "data"))},
        )

    def _measure(self, _module: str, request: dict, **_: object) -> dict:
        asked = sorted(request["sections"])
        found = self.values(len(self.measured))
        self.measured.append(asked)
        return {"device": "cpu", "values": {n: v for n, v in found.items() if SECTION[n] in asked}}

    def night(self, **options: Any) -> NightResult:
        return run_night(QUICK, self.history, root=self.root, on_line=print, **options)

    def clean_nights(self, count: int = LEAST_NIGHTS) -> None:
        for _ in range(count):
            self.night()


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


def worse(result: NightResult) -> list[str]:
    return [judgement.name for judgement in result.judgements if judgement.worse]


def test_a_night_is_a_line_of_the_history_with_all_that_was_measured(bench: Bench):
    bench.values = lambda call: {name: value + call for name, value in USUAL.items()}
    result = bench.night(further={"cached flow": [1.5, 1.2, 1.3]})
    ((number, record),) = read_journal(bench.history)
    assert number == 1
    assert record == result.record
    assert record["measurements"]["training step"] == {"repeats": [2.0, 3.0], "value": 2.5}
    assert record["measurements"]["cached flow"] == {"repeats": [1.5, 1.2, 1.3], "value": 1.3}
    assert record["commit"] == git("rev-parse", "HEAD")
    assert record["hardware"].keys() == {"processor", "cores", "device", "threads"}
    assert record["verdict"] == dict.fromkeys(record["measurements"], "too few nights")
    result.require_no_regression()


def test_what_is_worse_is_named_and_nothing_else_and_the_commits_between(bench: Bench, monkeypatch):
    about = ABOUT | {"uncommitted_changes": False, "libraries": {"torch": "1"}}
    before = about | {"commit": git("rev-parse", "HEAD~2")}
    monkeypatch.setattr(nights, "environment", lambda: before)
    bench.clean_nights()
    bench.night().require_no_regression()
    now = about | {"commit": git("rev-parse", "HEAD"), "libraries": {"torch": "2"}}
    monkeypatch.setattr(nights, "environment", lambda: now)
    bench.values = lambda _call: USUAL | {"generator burgers1d nu=0.01": 0.3}
    measured = len(bench.measured)
    result = bench.night()
    assert worse(result) == ["generator burgers1d nu=0.01"]
    again = bench.measured[measured + QUICK.repeats :]
    assert again == [["generators"]] * QUICK.repeats, (
        "what looks worse is measured again, and nothing else is"
    )
    assert len(result.record["measurements"]["generator burgers1d nu=0.01"]["repeats"]) == 2 * QUICK.repeats
    change = result.changes["generator burgers1d nu=0.01"]
    listed = git("log", "--format=%h %s", "HEAD~2..HEAD")
    assert listed is not None
    assert change.commits == listed.splitlines()
    assert change.others == ["torch 1 became 2"]
    with pytest.raises(
        RegressionError, match=r"generator burgers1d nu=0.01 is 0.3, 20.0% more than 0.25"
    ) as told:
        result.require_no_regression()
    assert change.commits[0] in str(told.value)
    assert told.value.exit_code == 8


def test_what_was_worse_by_chance_is_not_when_measured_again(bench: Bench):
    bench.clean_nights()
    calls = len(bench.measured)
    bench.values = lambda call: USUAL | {"training step": 2.5 if call < calls + QUICK.repeats else 1.6}
    result = bench.night()
    assert worse(result) == []
    assert result.record["measurements"]["training step"]["repeats"] == [2.5, 2.5, 1.6, 1.6]


def test_a_change_that_somebody_accepted_is_what_later_nights_are_compared_with(bench: Bench):
    bench.clean_nights()
    bench.values = lambda _call: USUAL | {"training step": 3.0, "operator error": 1.0}
    assert worse(bench.night()) == ["operator error", "training step"]
    accepting = ("--accept", "training step", "--because", "exact sums")
    assert main(["bench", "nightly", "--quick", "--root", str(bench.root), *accepting]) == 0
    for _ in range(LEAST_NIGHTS - 1):
        assert worse(bench.night()) == ["operator error"]
    result = bench.night()
    (judgement,) = [j for j in result.judgements if j.name == "training step"]
    assert (judgement.status, judgement.expected) == ("as before", pytest.approx(3.0))


def test_nights_on_other_hardware_do_not_count(bench: Bench, monkeypatch):
    bench.clean_nights()
    monkeypatch.setattr(nights, "environment", lambda: ABOUT | {"processor": "another"})
    bench.values = lambda _call: {name: 9 * value for name, value in USUAL.items()}
    assert bench.night().before == []


def test_another_history_is_refused_before_anything_is_measured(bench: Bench):
    bench.night()
    measured = len(bench.measured)
    with pytest.raises(
        ConfigurationError, match=rf"line 1: is of suite {QUICK.digest}.*\n  fix: .*--history"
    ):
        run_night(FULL, bench.history, root=bench.root, on_line=print)
    bench.history.write_text('{"kind": "night"}\n')
    with pytest.raises(IntegrityError, match=r"line 1: is no record of a nightly benchmark"):
        bench.night()
    assert len(bench.measured) == measured


@pytest.mark.slow
def test_the_page_has_the_verdict_first_and_needs_nothing_else(bench: Bench):
    bench.clean_nights()
    bench.values = lambda _call: USUAL | {"training step": 2.5}
    result = bench.night()
    page = bench.root / "page.html"
    picture = write_report(result, page, root=bench.root, on_line=print)
    text = page.read_text()
    assert "1 of 3 measurements is worse" in text
    assert text.index("training step is 2.5, 25.0% more than 2") < text.index("<table")
    assert text.count("data:image/svg+xml;base64,") == 3
    assert "http" not in text.replace("http-equiv", "")
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_suite_is_known_by_what_it_measures(monkeypatch, tmp_path):
    assert FULL.digest != QUICK.digest
    changed = tmp_path / "quick.yaml"
    changed.write_text("# a comment\n" + QUICK.configuration.read_text())
    suite = nights.Suite(QUICK.name, changed, QUICK.repeats, QUICK.sections)
    assert suite.digest == QUICK.digest
    changed.write_text(QUICK.configuration.read_text().replace("nu: 0.01", "nu: 0.02"))
    assert nights.Suite(QUICK.name, changed, QUICK.repeats, QUICK.sections).digest != QUICK.digest


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--accept", "training step"), "--accept and --because"),
        (("--accept", "nonsense", "--because", "x"), "'nonsense' is not measured"),
    ],
)
def test_arguments_that_mean_nothing_are_refused(tmp_path, capsys, arguments, told):
    assert main(["bench", "nightly", "--root", str(tmp_path), *arguments]) == 2
    assert told in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """(root, the night) of a first `ups bench nightly --quick`."""
    root = tmp_path_factory.mktemp("nightly") / "root"
    done = ups("bench", "nightly", "--quick", "--root", root, "--json")
    assert done.returncode == 0, done.stderr
    assert (root / "nightly" / f"quick-{QUICK.digest}.html").exists()
    return root, json.loads(done.stdout)["night"]


def clean_nights(night: dict, history: Path) -> None:
    """Nights as the measured one, as far apart as those of a machine that runs tests beside them."""
    lines = []
    for number in range(10):
        values = {}
        for name, one in night["measurements"].items():
            apart = {"operator error": 0.0, "operator error over fno's": 0.2}.get(name, 0.5)
            values[name] = one | {"value": one["value"] * math.exp((number % 5 - 2) * apart)}
        lines.append(json.dumps(night | {"measurements": values}) + "\n")
    history.write_text("".join(lines))


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("injected", "named", "perhaps"),
    [
        (None, set(), set()),
        ("generator", {"generator burgers1d nu=0.01"}, set()),
        # A fifth more, and races of tenths of a second may be further apart.
        ("operator", {"operator error"}, {"operator error over fno's"}),
    ],
)
def test_a_real_night_names_what_was_made_worse_and_nothing_else(
    measured: tuple[Path, dict], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, injected, named, perhaps
):
    root, night = measured
    history = tmp_path / "history.jsonl"
    clean_nights(night, history)
    if injected is not None:
        real = nights.run_tool
        path = f"{Path(__file__).parent / 'programs'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"

        def measure_worse(_module: str, request: dict, **options: Any) -> Any:
            environment = options.pop("environment") | {"PYTHONPATH": path, "WORSE": injected}
            return real("worse_benchmarks", request, **options, environment=environment)

        monkeypatch.setattr(nights, "run_tool", measure_worse)
    result = run_night(QUICK, history, root=root, on_line=print)
    assert named <= set(worse(result)) <= named | perhaps, result.regressions
    assert len(read_journal(history)) == 11
