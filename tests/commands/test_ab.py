"""`ups ab` on real trainings."""

import json

import pytest
import yaml
from command_line import TINY

from ups.commands.main import main

SHORT = ["training.operator.steps=12", "training.operator.warmup_steps=2", "training.operator.log_every=3"]


def ab(*arguments: object) -> int:
    try:
        return main(["ab", *map(str, arguments)])
    except SystemExit as leaving:
        return int(str(leaving.code))


@pytest.fixture
def accumulating(tmp_path):
    """The same training in two parts a step: the same errors but for rounding, and slower."""
    content = yaml.safe_load(TINY.read_text())
    content["name"] = "accumulating"
    content["training"]["operator"]["accumulation"] = 4
    path = tmp_path / "accumulating.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.slow
def test_a_slower_training_of_equal_error_fails_for_its_speed_alone(sealed_root, accumulating, capsys):
    sets = [word for text in [*SHORT, "execution.device=cpu"] for word in ("--set", text)]
    arguments = [TINY, accumulating, "--seeds", 2, "--memory", 2, "--root", sealed_root, *sets]
    assert ab(*arguments, "--json") == 8
    captured = capsys.readouterr()
    baseline, optimised = json.loads(captured.out)
    assert (baseline["arm"], optimised["arm"]) == ("baseline", "optimised")
    assert optimised["error_ratio"]["mean"] == pytest.approx(1.0, abs=1e-3)
    assert [message.partition(":")[0] for message in optimised["failed"]] == ["speed"]
    assert baseline["memory_gigabytes"] > 0.1
    assert "comparison error" in captured.err
    assert captured.err.count("operator resumes") == 0
    # Again: the trainings of this comparison are not made twice, and the gate may be another.
    assert ab(*arguments, "--speed", 1e-9) == 0
    captured = capsys.readouterr()
    assert "operator 12/12" not in captured.err, "it was trained again"
    assert "passed" in captured.out


def test_one_seed_is_refused(capsys):
    assert ab(TINY, TINY, "--seeds", 1) == 2
    assert "one seed has no interval" in capsys.readouterr().err


def test_a_configuration_is_not_compared_with_itself(capsys):
    assert ab(TINY, TINY) == 2
    assert "is the same training as" in capsys.readouterr().err
