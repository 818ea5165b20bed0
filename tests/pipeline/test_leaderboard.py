"""The leaderboard: what is compared has the same truth, and a damaged line is named."""

import json
import shutil
from dataclasses import replace

import pytest
from made_up_runs import make_run
from small_run import WAVE

from ups.errors import ConfigurationError, IntegrityError
from ups.pipeline.leaderboard import LEADERBOARD, add, problems_of, ranked, read, title_of
from ups.pipeline.run_record import RunRecord


def names(boards) -> list[list[str]]:
    return [[place.row.run["configuration"] for place in board] for board in boards]


def run_named(root, name, second=5, **options):
    return make_run(root, f"20260102T03040{second}Z-{name}-0123abcd", **options)


def test_a_row_has_all_that_it_takes_to_compare_and_to_repeat_it(tmp_path):
    [row] = add([run_named(tmp_path, "first", hits=("download", "autoencoder"))], tmp_path)
    assert row.run == {
        "name": "20260102T030405Z-first-0123abcd",
        "configuration": "first",
        "digest": row.run["digest"],
        "seed": 7,
        "hardware": "A processor, 2 cores, cpu",
        "commit": "c0ffee00" * 5,
        "uncommitted_changes": False,
        "command": "ups run small.yaml --set seed=7",
        "seconds": 50.0,
        "seconds_from_scratch": 75.0,
        "cost_usd": pytest.approx(0.05),
        "cost_from_scratch_usd": pytest.approx(0.075),
        "gates": "",
        "report": "runs/20260102T030405Z-first-0123abcd/report.html",
    }
    assert row.problem["dataset"] == "burgers1d nu=0.01"
    assert row.problem["test"] == "the test trajectories"
    assert row.results["operator"]["trajectory_relative_l2"] == pytest.approx(
        (0.05, 0.05 - 1.96 * 0.0123 * 0.05, 0.05 + 1.96 * 0.0123 * 0.05)
    )
    assert read(tmp_path) == [row]


def test_the_best_is_first_and_what_is_there_is_not_added_again(tmp_path):
    runs = [
        run_named(tmp_path, name, s, error=e)
        for s, (name, e) in enumerate((("a", 1.0), ("b", 0.5), ("c", 2.0)))
    ]
    assert len(add(runs[:2], tmp_path)) == 2
    assert len(add(runs, tmp_path)) == 1
    assert add(runs, tmp_path) == []
    rows = read(tmp_path)
    assert names(ranked(rows)) == [["b", "a", "c"]]
    assert {place.model for place in ranked(rows)[0]} == {"consistency_1"}
    # Coverage is best at 90 %, and equal in all.
    assert {place.model for place in ranked(rows, "coverage_90")[0]} == {"diffusion"}


def test_a_run_that_fails_its_gates_is_no_champion(tmp_path):
    worse, better = run_named(tmp_path, "worse", 1), run_named(tmp_path, "better", 2, error=0.1)
    (better / "gates.json").write_text(json.dumps([{"passed": True}, {"passed": False}]))
    add([better, worse], tmp_path)
    assert names(ranked(read(tmp_path))) == [["worse", "better"]]


@pytest.mark.parametrize(
    "other",
    [
        {"test": "other trajectories"},
        {"small": replace(WAVE, dataset="burgers1d nu=0.02")},
        {"small": replace(WAVE, steps=7)},
        {"small": replace(WAVE, grid=(64,))},
    ],
    ids=["trajectories", "parameter", "steps", "grid"],
)
def test_only_what_was_scored_on_the_same_truth_is_compared(tmp_path, other):
    add([run_named(tmp_path, "one", 1), run_named(tmp_path, "same", 2, error=2)], tmp_path)
    add([run_named(tmp_path, "other", 3, **other)], tmp_path)
    rows = read(tmp_path)
    assert sorted(names(ranked(rows))) == [["one", "same"], ["other"]]
    [chosen] = ranked(rows, problem=rows[2].problem["id"])
    assert names([chosen]) == [["other"]]


def test_what_pdebenchs_metrics_leave_out_makes_another_problem_and_keeps_ids_of_older_lines(tmp_path):
    one, papers, again, later = (run_named(tmp_path, n, s) for s, n in enumerate(("ours", "p0", "p1", "ten")))
    for run, skipped in ((papers, 0), (again, 0), (later, 2)):
        records = json.loads((run / "metrics.json").read_text())
        for record in records:
            if record["metric"].startswith("pdebench_"):
                record["frames_skipped"] = skipped
        (run / "metrics.json").write_text(json.dumps(records))
    add([one, papers, again, later], tmp_path)
    rows = read(tmp_path)
    assert sorted(map(sorted, names(ranked(rows)))) == [["ours"], ["p0", "p1"], ["ten"]]
    assert rows[0].problem == problems_of(RunRecord.read(one))["burgers1d"], "as in older lines"
    titles = [title_of(row.problem) for row in rows]
    assert "PDEBench" not in titles[0]
    assert "; in PDEBench's metrics the given frame counts" in titles[1]
    assert "; in PDEBench's metrics the first 2 frames do not count" in titles[3]


def test_what_cannot_be_ranked_or_found_is_refused(tmp_path):
    add([run_named(tmp_path, "one")], tmp_path)
    rows = read(tmp_path)
    with pytest.raises(ConfigurationError, match="'spread_skill_median' ranks nothing"):
        ranked(rows, "spread_skill_median")
    with pytest.raises(ConfigurationError, match="no run of 'darcy' is on the leaderboard"):
        ranked(rows, problem="darcy")


def test_a_damaged_line_is_named_and_a_torn_one_costs_itself_alone(tmp_path):
    add([run_named(tmp_path, "one", 1)], tmp_path)
    path = tmp_path / LEADERBOARD
    path.write_text(path.read_text() + '{"torn')
    add([run_named(tmp_path, "two", 2)], tmp_path)
    assert [row.run["configuration"] for row in read(tmp_path)] == ["one", "two"]
    path.write_text(path.read_text() + '{"problem": {}}\n')
    with pytest.raises(IntegrityError, match="line 3: is no row"):
        read(tmp_path)


def test_nothing_is_added_where_one_of_several_runs_cannot_be(tmp_path):
    whole = run_named(tmp_path, "one", 1)
    unfinished = run_named(tmp_path, "two", 2, stages=("download",))
    with pytest.raises(ConfigurationError, match="has no results"):
        add([whole, unfinished], tmp_path)
    with pytest.raises(ConfigurationError, match="is not the directory of a run"):
        add([whole, tmp_path], tmp_path)
    shutil.rmtree(tmp_path / "artifacts" / "download")
    with pytest.raises(ConfigurationError, match="its trajectories are gone"):
        add([whole], tmp_path)
    assert not (tmp_path / LEADERBOARD).exists()


def test_a_run_that_was_scored_again_counts_once(tmp_path):
    run = run_named(tmp_path, "one")
    add([run], tmp_path)
    records = json.loads((run / "metrics.json").read_text())
    for record in records:
        record["value"] = None if record["value"] is None else record["value"] / 2
    (run / "metrics.json").write_text(json.dumps(records))
    add([run], tmp_path)
    rows = read(tmp_path)
    assert [row.results["operator"]["trajectory_relative_l2"].value for row in rows] == [0.025]
    assert len((tmp_path / LEADERBOARD).read_text().splitlines()) == 2, "nothing is taken out of the file"
