"""Tables can be read on any terminal and in files."""

import itertools

import pytest
from rich.console import Console

from ups.commands import tables
from ups.commands.tables import plan_table, result_table, result_tables, seed_tables
from ups.metric_labels import HEADINGS
from ups.pipeline.plan import PlannedStage

MODELS = ["persistence", "spatial_mean", "operator", "diffusion", "diffusion_zero_noise", "consistency_1"]
RECORDS = [
    {
        "problem": "burgers1d", "dataset": "rows[bold].hdf5 (burgers1d)", "split": "test", "n_trajectories": 128,
        "frames": 41, "frames_skipped": 1, "resolution": [128], "seed": 0, "model": model, "metric": metric, "field": None,
        "fields_scored": ["u"],
        "value": None if metric == "crps" and model == "persistence" else 1.234567e-05,
    }
    for model, metric in itertools.product(MODELS, HEADINGS)
]  # fmt: skip
REASON = "damaged: /a/long/path/to/artifacts/operator/0123456789abcdef: model[1].safetensors has 3 bytes"
PLAN = [
    PlannedStage(
        "cache_encode", "0123456789abcdef" * 4, {}, "HIT", "sealed 2026-01-01T00:00:00+00:00", 10**9
    ),
    PlannedStage("operator", "fedcba9876543210" * 4, {}, "MISS", REASON, 10**6),
]


@pytest.fixture
def shown(monkeypatch, capsys):
    def show(table, columns: int | None) -> list[str]:
        if columns is None:
            monkeypatch.delenv("COLUMNS", raising=False)
        else:
            monkeypatch.setenv("COLUMNS", str(columns))
        tables.show(table)
        return capsys.readouterr().out.splitlines()

    return show


def test_a_file_gets_one_row_per_model(shown):
    lines = shown(result_table(RECORDS), None)
    assert all(sum(line.startswith(f"{model} ") for line in lines) == 1 for model in MODELS)
    (header,) = [line for line in lines if line.startswith("model")]
    assert all(name in header for name in HEADINGS.values())
    assert max(map(len, lines)) <= 200


@pytest.mark.parametrize("columns", [60, 80, 100, 120])
def test_a_narrow_terminal_breaks_neither_names_nor_numbers(shown, columns):
    lines = shown(result_table(RECORDS), columns)
    assert max(map(len, lines)) <= columns
    cells = [line.split() for line in lines if line.startswith(tuple(MODELS))]
    parts = len(cells) // len(MODELS)
    assert parts == (2 if columns >= 100 else 3 if columns >= 80 else 4)
    assert {row[0] for row in cells} == set(MODELS)
    numbers = [cell for row in cells for cell in row[1:]]
    assert set(numbers) == {"1.23e-05"}
    assert len(numbers) == len(MODELS) * len(HEADINGS) - 1


def test_the_title_has_the_conventions_and_takes_no_markup(shown):
    title = " ".join(" ".join(shown(result_table(RECORDS), None)[:2]).split())
    assert title.startswith(
        "rows[bold].hdf5 (burgers1d), test split: 128 trajectories, 40 steps, 128 points, u scored, seed 0;"
    )
    assert "decoded fields, first frame not counted" in title
    assert "in PDEBench's" not in title
    papers = [record | {"frames_skipped": 0} for record in RECORDS]
    title = " ".join(" ".join(shown(result_table(papers), None)[:2]).split())
    assert (
        "first frame not counted; in PDEBench's metrics the given frame counts, with its error of zero"
        in title
    )


MAP = {"problem": "porous", "dataset": "darcy2d beta=1", "resolution": [64, 64], "frames": 2}
GAS = {"problem": "gas", "dataset": "compressible1d eta=0.1", "fields_scored": ["density", "pressure"]}


def test_every_problem_has_a_table_of_what_it_has(shown):
    of_map = [r | MAP for r in RECORDS if r["metric"] not in {"mass_drift", "final_relative_l2"}]
    wave, porous = result_tables([*RECORDS, *of_map])
    assert len(wave.columns) == len(HEADINGS) + 1
    lines = shown(porous, None)
    assert "1 step, 64 x 64 points" in lines[0]
    (header,) = [line for line in lines if line.startswith("model")]
    assert "mass drift" not in header
    assert "final" not in header
    assert "median" in header
    with pytest.raises(ValueError, match="several problems"):
        result_table([*RECORDS, *of_map])


def test_several_fields_have_columns_of_their_own(shown):
    error = "trajectory_relative_l2"
    records = [r | GAS | {"value": 1.0} for r in RECORDS if r["metric"] == error]
    records += [
        r | {"field": f, "value": v} for r in records for f, v in (("density", 0.5), ("pressure", 1.5))
    ]
    lines = shown(result_table(records), None)
    assert "density, pressure scored" in " ".join(" ".join(lines[:2]).split())
    (row,) = [line.split() for line in lines if line.startswith("operator ")]
    assert row == ["operator", "1", "0.5", "1.5"]


@pytest.mark.parametrize("columns", [80, None])
def test_a_plan_wraps_only_its_reasons(shown, columns):
    lines = shown(plan_table(PLAN), columns)
    assert max(map(len, lines)) <= (columns or 160)
    assert sum(line.startswith("cache_encode  HIT ") for line in lines) == 1
    assert sum(line.startswith("operator      MISS ") for line in lines) == 1
    assert any("0123456789ab " in line and line.rstrip().endswith("1000.0") for line in lines)
    text = "".join(line[23:].split("fedcba987654")[0].strip() for line in lines[2:])
    assert text.replace(" ", "") == REASON.replace(" ", "")


def test_colours_are_for_terminals(monkeypatch, capsys):
    tables.show(plan_table(PLAN))
    assert "\x1b" not in capsys.readouterr().out
    with (terminal := Console(force_terminal=True, width=140, no_color=False)).capture() as captured:
        terminal.print(plan_table(PLAN))
    assert "\x1b[32mHIT" in captured.get()


def test_several_seeds_are_shown_with_their_range():
    def run(seed, error):
        shared = {"problem": "p", "field": None, "seed": seed, "metric": "trajectory_relative_l2"}
        return [shared | {"model": "operator", "value": error}, shared | {"model": "trivial", "value": 1.0}]

    (table,) = seed_tables([run(0, 0.1), run(1, 0.3)]).values()
    assert "seeds 0, 1" in str(table.title)
    rows = list(zip(*(column.cells for column in table.columns), strict=True))
    assert rows == [("operator", "0.2 [0.1, 0.3]"), ("trivial", "1")]
