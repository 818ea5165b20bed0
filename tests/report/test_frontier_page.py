"""The page of a frontier."""

import pytest
from made_up_frontier import GRIDS, made_up_frontier

from ups.report import drawing
from ups.report.frontier_figure import frontier
from ups.report.frontier_page import html


def test_every_row_and_grid_is_labelled_in_both_panels():
    svg = drawing.render(frontier(made_up_frontier()), "svg").decode()
    for label in ("linear map, ", "operator, not averaged, ", "guided, ", "U-Net, "):
        assert svg.count(label) == 2, label
    for cells, *_ in GRIDS:
        assert svg.count(f">{cells}<") + svg.count(f", {cells} cells<") == 2, cells
    assert svg.count("own 128 cells") == 2


def test_the_page_says_the_verdict_and_holds_everything():
    page = html(made_up_frontier())
    assert "depends on how many trajectories are forecast at once" in page
    assert "Batch 1: never. operator_single takes" in page
    assert "not known" in page
    assert "data:image/svg+xml" in page
    assert "http" not in page.partition("</head>")[2].partition("data:image")[0]


def test_a_files_truth_has_no_cost_that_anybody_knows():
    """And its grid is the finest of the solver's."""
    record = made_up_frontier(generated=False)
    svg = drawing.render(frontier(record), "svg").decode()
    assert "own 128 cells" not in svg
    assert svg.count(">128<") == 2
    page = html(record)
    assert "made by another solver" in page
    assert "same scheme" not in page
    assert "dashed line" not in page


@pytest.mark.parametrize(
    ("verdict", "words"),
    [("pays", "The surrogate pays<"), ("never", "never pays here"), ("not known", "It is not known whether")],
)
def test_one_verdict_for_all_batches_is_the_headline(verdict, words):
    record = made_up_frontier()
    for each in record["verdicts"]:
        each["verdict"] = verdict
    assert words in html(record)
