"""The page of the leaderboard: one file that requests nothing, and runs no script but the one that sorts."""

import base64
import hashlib
import json
import re
from pathlib import Path

from made_up_runs import make_run

from ups.pipeline.leaderboard import add, ranked, read
from ups.report.leaderboard_page import html


def page(root: Path, metric: str = "trajectory_relative_l2") -> str:
    boards = [
        [place.row.to_json() | {"model": place.model, "value": list(place.number)} for place in board]
        for board in ranked(read(root), metric)
    ]
    return html(boards, metric, root=root, beside=root)


def test_only_the_script_that_sorts_may_run_whatever_a_run_is_called(tmp_path):
    hostile = "<script>alert(1)</script>"
    run = make_run(tmp_path, name_of := "20260102T030405Z-x-0123abcd", rate=None)
    environment = (run / "env.json").read_text().replace("A processor", hostile)
    (run / "env.json").write_text(environment)
    add([run], tmp_path)
    text = page(tmp_path)
    [script] = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{allowed}'" in text
    assert "default-src 'none'" in text
    assert hostile not in text
    assert "&lt;script&gt;alert(1)" in text
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", text)
    assert f'href="runs/{name_of}/report.html"' in text


def test_the_champion_comes_first_with_its_cost_and_the_command_of_every_run(tmp_path):
    runs = [
        make_run(tmp_path, f"2026010{n}T030405Z-run{n}-0123abcd", error=e) for n, e in ((1, 1.0), (2, 0.25))
    ]
    add(runs, tmp_path)
    text = page(tmp_path)
    assert text.index(">run2<") < text.index(">run1<")
    champion = text[text.index('aria-label="Champion"') :]
    assert "<b>0.0100</b>" in champion
    assert "champion of 2 runs" in champion
    assert "0.0750\u202fUSD" in champion
    assert text.count("ups run small.yaml --set seed=7") == 2
    assert "90.0\u202f%" in page(tmp_path, "coverage_90") or "91.0\u202f%" in page(tmp_path, "coverage_90")


def test_frames_that_pdebenchs_metrics_leave_out_are_told(tmp_path):
    run = make_run(tmp_path)
    add([run], tmp_path)
    assert "PDEBench" not in page(tmp_path).partition("</h2>")[2].partition("</p>")[0]
    records = json.loads((run / "metrics.json").read_text())
    for record in records:
        if record["metric"] == "pdebench_nrmse":
            record["frames_skipped"] = 0
    (run / "metrics.json").write_text(json.dumps(records))
    add([run], tmp_path)
    assert page(tmp_path).count("in PDEBench’s metrics the given frame counts, with its error of zero;") == 1


def test_a_report_that_is_gone_is_no_link(tmp_path):
    run = make_run(tmp_path)
    add([run], tmp_path)
    (run / "report.html").unlink()
    assert "href=" not in page(tmp_path)


def test_without_runs_it_says_how_to_add_one(tmp_path):
    assert "ups leaderboard add RUN" in page(tmp_path)
