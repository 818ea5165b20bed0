"""The figure of test-time conditioning: it is there where there are its rows, and says whether physics and truth agree."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from small_run import TRAJECTORIES, make_curves

from ups.report import catalogue, page
from ups.report.conditioning_figure import conditioning
from ups.report.drawing import render

SVG = "{http://www.w3.org/2000/svg}"
ROWS = {"ttc": 0.9, "ttc_random": 1.4, "ttc_oracle": 0.8}


def conditioned(*, agreement: float = 1.0) -> dict[str, Any]:
    """Curves of a run with candidates whose scores are their errors to a power."""
    curves = make_curves()
    errors = 0.01 * np.exp(np.random.default_rng(0).normal(size=(TRAJECTORIES, 5)))
    operator = curves["models"]["operator"]
    operator["trajectory"] = errors[:, 0].tolist()
    for name, factor in ROWS.items():
        curves["models"][name] = operator | {"trajectory": (factor * errors[:, 0]).tolist()}
    scores = errors**agreement
    curves["conditioning"] = {"scores": scores.tolist(), "errors": errors.tolist()}
    return curves


def text_of(curves: dict[str, Any]) -> str:
    root = ET.fromstring(render(conditioning(curves), "svg"))
    return " ".join("".join(node.itertext()).strip() for node in root.iter(f"{SVG}text"))


@pytest.mark.parametrize(("agreement", "said"), [(1.0, "1"), (-1.0, "−1|-1")])
def test_it_says_whether_physics_and_truth_agree(agreement, said):
    text = text_of(conditioned(agreement=agreement))
    assert re.search(rf"a trajectory: ({said})(\.0)?\b", text), text
    for label in ("conditioned by physics", "random choice", "choice by true error", "operator"):
        assert label in text


def test_candidates_that_are_no_states_leave_a_gap():
    curves = conditioned()
    for name in ("scores", "errors"):
        curves["conditioning"][name][0][2:] = [None, None, None]
    assert "conditioned by physics" in text_of(curves)


def test_it_is_drawn_where_there_are_its_rows():
    assert catalogue.figures_of(1, is_map=False, conditioned=True)[-1] == catalogue.CONDITIONING
    assert catalogue.CONDITIONING not in catalogue.figures_of(1, is_map=False)


def test_the_page_explains_it(make_run: Callable[..., Path]):
    def edit(contents: dict[str, Any]) -> None:
        contents["curves"]["burgers1d"]["conditioning"] = {"scores": [], "errors": []}

    run = make_run(edit)
    with pytest.raises(Exception, match=r"conditioning\.svg"):
        page.html(run)
    (run / "figures" / "burgers1d" / catalogue.CONDITIONING).write_bytes(
        b"<svg xmlns='http://www.w3.org/2000/svg'/>"
    )
    assert "What does physics choose?" in page.html(run)
