"""The page of a sweep."""

import re

from sweep_ranking import RATE, ROWS, request, row

from ups.report.sweep_figures import learning_curves, parallel_coordinates
from ups.report.sweep_page import html


def test_the_page_says_who_won_who_was_ended_and_how_to_do_it_again():
    page = html(request(ROWS))
    order = [page.index(f"{place}. {one['name']}<") for place, one in enumerate(ROWS, 1)]
    assert order == sorted(order)
    assert "5 of 8" in page
    assert "2 ended early" in page
    assert "0.02340<small>±\u202f0.0021</small>" in page
    assert 'title="loss is not finite at step 12">diverged' in page
    assert f"--set {RATE}=0.0005" in page
    assert page.count("data:image/svg+xml;base64,") == 2
    assert not re.search(r'(src|href)="(?!data:)', page), "nothing is requested from anywhere"


def test_names_of_a_file_are_no_markup():
    page = html(request([row("<script>alert(1)</script>", "1", "a", 0.5)]))
    assert "<script>" not in page


def test_a_sweep_that_has_only_begun_has_a_page_too():
    waiting = row("a", "0.1", "ffno", None, step=0, state="waiting", seconds=None, message="")
    page = html(request([waiting]))
    assert "0 of 1" in page
    assert "data:image" not in page


def test_costs_and_seeds_are_told_where_there_are_any():
    priced = row("a", "0.1", "ffno", 0.5, cost_usd=1.5, seeds=3, half_width=0.02)
    page = html(request([priced], seeds=3))
    assert "1.50\u202fUSD" in page
    assert "0.5000<small>±\u202f0.020</small>" in page
    assert "over seeds" in page


def test_lines_go_through_the_values_to_the_error():
    """Better is lower; rates are on a logarithmic axis, kinds evenly spaced."""
    figure = parallel_coordinates(ROWS, [RATE, "model.operator.kind"])
    [axes] = figure.axes
    lines = [line for line in axes.lines if len(line.get_xdata()) == 3]
    assert len(lines) == 7, "one has no error"
    best = max(lines, key=lambda line: line.get_linewidth())
    heights = list(best.get_ydata())
    assert heights == [2 / 3, 0.25, 0.0]
    dashed = [line for line in lines if line.get_linestyle() != "-"]
    assert len(dashed) == 2


def test_curves_of_those_that_were_ended_end_with_a_cross():
    [axes] = learning_curves(ROWS).axes
    crosses = [float(line.get_xdata()[0]) for line in axes.lines if line.get_marker() == "x"]
    assert sorted(crosses) == [300, 400]
    assert axes.get_yscale() == "log"
