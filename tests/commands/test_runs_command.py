"""`ups runs` and `ups leaderboard` as a user meets them, on runs that were never run."""

import json
import re

import pytest
from made_up_runs import make_run
from small_run import STAGES

from ups.commands.main import main

FIRST, SECOND, BROKEN = (
    f"2026010{day}T030405Z-{name}-0123abcd" for day, name in ((1, "one"), (2, "two"), (3, "broken"))
)


@pytest.fixture
def root(tmp_path):
    make_run(tmp_path, FIRST)
    make_run(tmp_path, SECOND, error=0.5, hits=STAGES[:3], training={"operator": {"learning_rate": 0.001}})
    make_run(tmp_path, BROKEN, stages=STAGES[:4])
    return tmp_path


@pytest.fixture
def ask(root, capsys):
    """Exit code and output of a command with this root."""

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main([*arguments, "--root", str(root)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ([], [FIRST, SECOND, BROKEN]),
        (["--name", "tw"], [SECOND]),
        (["--last", "2"], [SECOND, BROKEN]),
        (["--last", "1", "--stage", "evaluate"], [SECOND]),
        (["--state", "interrupted"], [BROKEN]),
        (["--state", "running"], []),
        (["--stage", "cache-encode"], [FIRST, BROKEN]),
        (["--stage", "evaluate"], [FIRST, SECOND]),
        (["--where", "training.operator.learning_rate=1e-3"], [SECOND]),
        (["--where", "training.operator.learning_rate=2e-3", "--where", "name=one"], [FIRST]),
    ],
)
def test_runs_are_listed_and_filtered(ask, options, found):
    code, output, _ = ask("runs", "ls", *options)
    assert code == 0
    assert re.findall(r"^2026\S+", output, re.MULTILINE) == found
    assert [row["run"] for row in json.loads(ask("runs", "ls", "--json", *options)[1])] == found


def test_a_list_says_state_stages_error_time_and_cost(ask):
    lines = ask("runs", "ls")[1].splitlines()
    [two] = [re.split("  +", line.strip()) for line in lines if SECOND in line]
    assert two == [SECOND, "finished", "3 found, 4 built", "0.02 [0.0195, 0.0205]", "40 / 75", "0.04 / 0.075"]
    [broken] = [line for line in lines if BROKEN in line]
    assert "interrupted" in broken
    assert "4 built, 3 to do" in broken


def test_a_damaged_run_is_named_and_the_others_are_listed(ask, root):
    (root / "runs" / FIRST / "plan.json").write_text("{")
    (root / "runs" / "nothing").mkdir()
    code, output, told = ask("runs", "ls")
    assert code == 0
    assert re.findall(r"^2026\S+", output, re.MULTILINE) == [SECOND, BROKEN]
    assert f"{FIRST}/plan.json: is not JSON" in told
    assert "runs/nothing: is not the directory of a run" in told


def test_one_run_is_shown_whole(ask):
    code, output, _ = ask("runs", "show", SECOND)
    assert code == 0
    for part in ("ups run small.yaml --set seed=7", "40 / 75 s", "finished", "consistency_1", "A processor"):
        assert part in output
    assert re.search(r"^download +found +10 s +0 +0.015 +sealed", output, re.MULTILINE)
    assert json.loads(ask("runs", "show", SECOND, "--json")[1])["configuration"]["name"] == "two"
    code, _, told = ask("runs", "show", "unknown")
    assert code == 2
    assert "ups runs ls" in told


def test_a_leaderboard_is_added_to_and_shown(ask, root):
    assert ask("leaderboard", "show")[1].startswith("no run is on the leaderboard")
    code, output, _ = ask("leaderboard", "add", FIRST, str(root / "runs" / SECOND))
    assert code == 0
    assert re.search(
        rf"^added: {FIRST} on burgers1d nu=0.01: 5 test trajectories, 6 steps, 32 points \(", output
    )
    assert "all are there already" in ask("leaderboard", "add", FIRST)[1]
    output = ask("leaderboard", "show")[1]
    assert re.findall(r"^(\d) +(2026\S+) +(\w+) ", output, re.MULTILINE) == [
        ("1", SECOND, "consistency_1"),
        ("2", FIRST, "consistency_1"),
    ]
    [board] = json.loads(ask("leaderboard", "show", "--json", "--problem", "burgers1d")[1])
    assert [place["value"][0] for place in board] == pytest.approx([0.02, 0.04])
    assert ask("leaderboard", "add", BROKEN)[0] == 2
    assert ask("leaderboard", "show", "--problem", "darcy")[0] == 2


def test_a_damaged_line_is_told(ask, root):
    ask("leaderboard", "add", FIRST)
    with (root / "leaderboard.jsonl").open("a") as file:
        file.write("nonsense\n")
    code, _, told = ask("leaderboard", "show")
    assert code == 5
    assert "leaderboard.jsonl, line 2: is damaged" in told


@pytest.mark.slow
def test_a_page_is_written_by_a_process_of_its_own(ask, root, tmp_path):
    ask("leaderboard", "add", FIRST, SECOND)
    page = tmp_path / "pages" / "board.html"
    code, output, _ = ask("leaderboard", "show", "--html", str(page))
    assert (code, output.strip()) == (0, str(page))
    assert f'href="../runs/{SECOND}/report.html"' in page.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("command", ["runs", "leaderboard"])
def test_two_runs_are_compared_trajectory_by_trajectory(ask, command):
    code, output, _ = ask(command, "compare", FIRST, SECOND)
    assert code == 0
    assert re.search(r"^training.operator.learning_rate +0\.002 +0\.001 *$", output, re.MULTILINE)
    assert re.search(r"^operator .* 0.5 \[0.5, 0.5\] +better *$", output, re.MULTILINE)
    assert re.search(r"^persistence .* 1 \[1, 1\] +no difference shown *$", output, re.MULTILINE)
    found = json.loads(ask(command, "compare", SECOND, FIRST, "--json")[1])
    assert found["configuration"]["name"] == ["two", "one"]
    [row] = [
        row
        for row in found["numbers"]
        if (row["model"], row["metric"]) == ("diffusion", "trajectory_relative_l2")
    ]
    assert row["ratio"] == pytest.approx([2.0, 2.0, 2.0])
    assert "worse" in ask(command, "compare", SECOND, FIRST)[1]


def test_runs_on_other_trajectories_are_not_paired(ask, root):
    make_run(root, "20260104T030405Z-other-0123abcd", test="other trajectories")
    code, output, _ = ask("runs", "compare", FIRST, "20260104T030405Z-other-0123abcd")
    assert code == 0
    assert "the test trajectories are not the same, and nothing is paired" in output
    assert "better" not in output
    assert "worse" not in output
