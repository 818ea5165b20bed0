"""Where the runs of deployments start: in the checkout of the worker's own machine."""

from pathlib import Path

import pytest
import yaml
from prefect.utilities.importtools import import_object

from deployments.deploy import FILE
from ups.errors import PreflightError
from ups.pipeline import checkout


def test_the_step_of_all_deployments_goes_to_the_checkout_that_is_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    [step] = yaml.safe_load(FILE.read_text())["pull"]
    [(name, inputs)] = step.items()
    assert inputs == {}, "nothing of the machine that deploys"
    found = import_object(name)()
    assert Path(found["directory"]) == Path.cwd() == Path(__file__).parents[2]


def test_a_library_without_its_checkout_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(checkout, "CHECKOUT", tmp_path)
    with pytest.raises(PreflightError, match="installed without its checkout"):
        checkout.enter()
