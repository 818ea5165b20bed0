"""`ups bench frontier`: what is compared with what, what is refused, and the whole of it on a tiny run."""

import json
import math

import pytest
import torch
from command_line import CONFIGS, TINY, ups
from made_up_frontier import made_up_frontier

from ups.benchmarks import frontier as frontiers
from ups.benchmarks.frontier import _fastest, _Row, _timed, measure_frontier, stages_behind
from ups.config import Configuration, load_configuration
from ups.errors import ConfigurationError
from ups.pipeline.frontier import _in_one_process

STAGES = ["download", "autoencoder", "cache_encode", "operator", "diffusion", "consistency"]


def by_row(record: dict, batch: int) -> dict[str, dict]:
    return {row["model"]: row for row in record["comparisons"] if row["batch"] == batch}


def test_a_row_is_held_against_the_solver_at_its_own_error():
    rows = by_row(made_up_frontier(), 64)
    assert rows["operator"]["solver_seconds"] == pytest.approx(0.016)
    assert rows["operator"]["speedup"] == pytest.approx(8)
    assert rows["operator"]["break_even"] == math.ceil(300 / 0.014)
    # The curve is 1.6e-4 / error.
    single = rows["operator_single"]
    assert single["solver_seconds"] == pytest.approx(1.6e-4 / 0.0125)
    assert single["speedup"] == pytest.approx(25.6)
    assert rows["unet"]["verdict"] == "never"
    assert rows["unet"]["break_even"] is None


def test_beyond_the_solvers_grids_only_a_bound_is_claimed():
    rows = by_row(made_up_frontier(), 64)
    coarser, finer = rows["linear"], rows["guided"]
    # More accurate than the finest grid, and slower than the truth itself, which took 0.06 s.
    assert (finer["bound"], finer["solver_seconds"], finer["verdict"]) == ("at least", 0.016, "never")
    # Less accurate than the coarsest one: a coarser one might take less than the row.
    assert (coarser["bound"], coarser["verdict"], coarser["break_even"]) == ("at most", "not known", None)


@pytest.mark.parametrize(("seconds", "verdict"), [(0.01, "pays"), (0.03, "not known"), (0.07, "never")])
def test_a_row_beyond_the_finest_grid_is_held_against_that_and_the_truths_own(seconds, verdict):
    records = made_up_frontier()["rows"]
    guided = next(record for record in records if record["model"] == "guided")
    guided["seconds"]["64"]["median"] = seconds
    row = next(row for row in frontiers.compared(records, 64) if row["model"] == "guided")
    assert row["verdict"] == verdict
    assert (row["break_even"] is not None) == (verdict == "pays")


def test_a_forecast_that_is_not_finite_is_compared_with_nothing():
    record = made_up_frontier()
    for row in record["rows"]:
        if row["kind"] != "solver":
            row["error"] = None
    assert frontiers.compared(record["rows"], 64) == []
    assert len(frontiers.front(record["rows"], 64)) == 3
    assert frontiers.verdict([], 64)["text"].startswith("Batch 64: no forecast is finite")


def test_a_solver_that_is_not_finite_is_no_point_of_the_curve():
    rows = made_up_frontier()["rows"]
    solvers = [row for row in rows if row["kind"] == "solver"]
    solvers[0]["error"] = None
    coarsest = {row["model"]: row for row in frontiers.compared(rows, 64)}["linear"]
    assert coarsest["solver_seconds"] == pytest.approx(0.004)
    for solver in solvers:
        solver["error"] = None
    assert frontiers.compared(rows, 64) == []


def test_the_truths_own_grid_is_no_point_of_the_curve():
    record = made_up_frontier()
    assert all(row["solver_seconds"] <= 0.016 for row in record["comparisons"])
    assert all(error > 1e-5 for error, _ in record["fronts"]["64"])


@pytest.mark.parametrize(("seconds", "verdict"), [(0.01, "pays"), (0.07, "never")])
def test_of_a_file_the_truths_grid_is_the_finest_of_the_curve(seconds, verdict):
    record = made_up_frontier(generated=False)
    assert any(error == 1e-5 for error, _ in record["fronts"]["64"])
    guided = next(row for row in record["rows"] if row["model"] == "guided")
    guided["seconds"]["64"]["median"] = seconds
    row = next(row for row in frontiers.compared(record["rows"], 64) if row["model"] == "guided")
    assert (row["bound"], row["verdict"]) == ("", verdict)
    assert 0.016 < row["solver_seconds"] < 0.06


def test_what_a_files_truth_would_take_is_not_known():
    """A row that is more accurate than the solver on the file's grid."""
    record = made_up_frontier(generated=False)
    guided = next(row for row in record["rows"] if row["model"] == "guided")
    guided |= {"error": 1e-6}
    guided["seconds"]["64"]["median"] = 1.0
    row = next(row for row in frontiers.compared(record["rows"], 64) if row["model"] == "guided")
    assert (row["bound"], row["verdict"], row["break_even"]) == ("at least", "not known", None)


def test_the_verdict_says_which_row_pays_after_how_many_or_never():
    alone, together = made_up_frontier()["verdicts"]
    assert alone["verdict"] == "never"
    assert alone["text"].startswith("Batch 1: never. operator_single takes 0.04 s")
    assert alone["text"].endswith("0.0128 s for its error (0.0125), 3.12 times less")
    assert together["verdict"] == "pays"
    # The other one is 26 times as fast, for a larger error, and saves less per trajectory.
    assert together["text"].startswith("Batch 64: operator takes 0.002 s")
    assert together["text"].endswith(
        f"8 times as fast. Data and training, 300 s, are paid for after {math.ceil(300 / 0.014):,} trajectories"
    )


def test_a_row_pays_for_the_stages_that_it_needs():
    assert stages_behind("operator_single", STAGES) == STAGES[:4]
    assert stages_behind("operator_dressed", STAGES)[-1] == "diffusion"
    assert stages_behind("diffusion_mean", STAGES)[-1] == "diffusion"
    assert stages_behind("consistency_1", STAGES) == STAGES
    assert stages_behind("something new", STAGES) == STAGES


def test_rows_are_timed_in_turns_and_each_call_begins_anew():
    """What forecasts remember of an earlier call must not make the next one free."""
    called: list[str] = []

    def row(name: str) -> _Row:
        def make():
            called.append(f"make {name}")
            return lambda first: called.append(f"{name} {len(first)}") or first

        return _Row(name, "solver", torch.ones(3, 8, 1), {"eager": make})

    timed = _timed([row("a"), row("b")], [{"error": 0.1}, {"error": None}], batch=5, repeats=2)
    rounds = called[-8:]
    assert rounds == 2 * ["make a", "a 5", "make b", "b 5"]
    assert all(0 <= each["low"] <= each["median"] <= each["high"] for each in timed)


@pytest.mark.parametrize("kind", ["solver", "surrogate"])
def test_a_compiled_row_that_gives_other_numbers_or_fails_does_not_count(kind, caplog):
    def failing():
        raise RuntimeError("no such kernel")

    first = torch.ones(2, 8, 1)
    wrong = {"eager": lambda: lambda x: x, "compiled": lambda: lambda x: 1.01 * x}
    broken = {"eager": lambda: lambda x: x, "compiled": failing}
    caplog.set_level("INFO", logger=frontiers.__name__)
    assert _fastest(_Row("gas", kind, first, wrong), first, 0.1) == "eager"
    assert _fastest(_Row("gas", kind, first, broken), first, 0.1) == "eager"
    assert "gives other numbers" in caplog.text
    assert "no such kernel" in caplog.text
    with pytest.raises(RuntimeError, match="no such kernel"):
        _fastest(_Row("gas", kind, first, {"eager": failing}), first, 0.1)


@pytest.mark.parametrize(
    ("error", "difference", "same"),
    [(0.1, 5e-4, True), (0.1, 2e-3, False), (1e-3, 5e-5, True), (1e-3, 5e-4, False), (1e-7, 1e-6, True)],
)
def test_other_numbers_are_those_that_are_a_part_of_the_error(error, difference, same):
    """In every field: a large one hides no small one."""
    expected = torch.tensor([[[1e5, 1.0], [1e5, -1.0]]])
    forecast = expected * torch.tensor([1.0, 1 + difference])
    assert frontiers._same(forecast, expected, error) == same
    assert not frontiers._same(torch.full_like(expected, math.nan), expected, None)


def test_grids_are_refused_before_peers_are_trained(monkeypatch):
    def refuse(*_, **__):
        raise ConfigurationError("no such grid", where="--cells", fix="another")

    monkeypatch.setattr(frontiers, "_Solvers", refuse)
    monkeypatch.setattr(frontiers, "_Peers", lambda *_: pytest.fail("trained"))
    configuration = load_configuration(TINY, {}).model_dump(mode="json")
    request = {"configuration": configuration, "inputs": {"download": "nowhere"}, "problem": "burgers1d"}
    with pytest.raises(ConfigurationError, match="no such grid"):
        measure_frontier(request)


@pytest.mark.parametrize("shared", ["all_reduce", "ddp"])
def test_what_several_processes_trained_is_measured_in_one(shared):
    overrides = {"execution.processes": 2, "execution.nodes": 2, "execution.data_parallel": shared}
    configuration = load_configuration(TINY, overrides)
    alone = Configuration.model_validate(_in_one_process(configuration))
    assert alone.execution.ranks == 1
    assert alone.training == configuration.training


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "burgers_tiny has not been trained here: there is no download"),
        (("--problem", "gas"), "--problem: burgers_tiny has no problem 'gas'"),
        (("--cells", "8,x"), "'x' is not a whole number"),
        (("--peers", "lstm"), "'lstm' is none of fno"),
        (("--set", "execution.processes=2"), "burgers_tiny has not been trained here"),
        (("--report", "frontier.json"), "--report frontier.json: does not end in .html"),
        (
            ("--report", "nowhere/page.html"),
            "--report nowhere/page.html: is in a directory that does not exist",
        ),
    ],
)
def test_wrong_arguments_are_told(answer, arguments, message, tmp_path):
    code, _, told = answer("bench", "frontier", TINY, "--root", tmp_path, *arguments)
    assert code == 2
    assert message in told
    assert not (tmp_path / "frontier").exists()


def test_of_several_problems_one_has_to_be_named(answer, tmp_path):
    code, _, told = answer("bench", "frontier", CONFIGS / "mix_tiny.yaml", "--root", tmp_path)
    assert code == 2
    assert "--problem: mix_tiny has several problems" in told


@pytest.mark.slow
def test_a_frontier_of_a_tiny_run_on_the_command_line(sealed_root):
    quiet = ("--root", sealed_root, "--set", "tracking.wandb=disabled")
    ttc = "evaluation.ttc={members: 4, fitted_on: 4, refinement: 4, selection: {kind: least_squares}}"
    quiet += ("--set", ttc)
    trained = ups("run", TINY, *quiet)
    assert trained.returncode == 0, trained.stderr
    command = ("bench", "frontier", TINY, *quiet, "--eager", "--repeats", "1")
    refused = ups(*command, "--cells", "12")
    assert refused.returncode == 2
    assert "12 cells are no coarser grid of a truth on 32" in refused.stderr
    done = ups(*command, "--json", "--peers", "dilated_resnet", "--seconds", "1")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record == json.loads((sealed_root / "frontier" / "burgers_tiny-burgers1d.json").read_text())
    page = (sealed_root / "frontier" / "burgers_tiny-burgers1d.html").read_text()
    table = json.loads(next((sealed_root / "runs").glob("*/metrics.json")).read_text())
    headline = {
        row["model"]: row["value"]
        for row in table
        if row["metric"] == "trajectory_relative_l2" and row["field"] is None
    }
    rows = {row["model"]: row for row in record["rows"] if row["kind"] == "surrogate"}
    assert set(rows) == set(headline) - {"persistence", "spatial_mean", "ttc_random", "ttc_oracle"}
    for name, row in rows.items():
        assert row["error"] == pytest.approx(headline[name], rel=1e-4), name
    assert rows["ttc"]["error"] != rows["operator"]["error"]
    # Its candidates are the diffusion's.
    assert rows["ttc"]["invested_seconds"] > rows["diffusion"]["invested_seconds"]
    (peer,) = (row for row in record["rows"] if row["kind"] == "peer")
    assert peer["model"] == "dilated_resnet"
    assert peer["error"] > 0
    assert peer["invested_seconds"] > record["stages"][0]["seconds"]
    solvers = [row for row in record["rows"] if row["kind"] == "solver"]
    assert [(row["cells"], row["own_grid"]) for row in solvers] == [(8, False), (16, False), (32, True)]
    assert solvers[0]["error"] > solvers[1]["error"] > solvers[2]["error"] > 0
    for row in record["rows"]:
        assert set(row["seconds"]) == {"1", "64"}
        assert all(taken["median"] > 0 for taken in row["seconds"].values())
    assert rows["operator"]["invested_seconds"] == pytest.approx(
        sum(e["seconds"] for e in record["stages"][:4])
    )
    assert record["verdicts"][0]["text"].startswith("Batch 1: ")
    assert "data:image/svg+xml" in page
