"""A request says all that a stage process needs, and comes back from its file as it was."""

import json
from pathlib import Path

import pytest
from command_line import CONFIGS

from ups.config import load_configuration
from ups.runtime.request import Request


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_what_is_written_is_read_back(tmp_path, path):
    configuration = load_configuration(path, {"execution.device": "cpu"})
    written = {
        "root": str(tmp_path / "root"),
        "stage": "operator",
        "digest": "a" * 64,
        "code": "b" * 64,
        "configuration": configuration.model_dump(mode="json"),
        "inputs": {"download": str(tmp_path / "download")},
        "contents": {"download": "c" * 64},
    }
    (tmp_path / "request.json").write_text(json.dumps(written))
    request = Request.read(tmp_path)
    assert request.configuration == configuration
    assert list(request.configuration.problems) == list(configuration.problems)
    assert (request.work, request.root, request.output) == (tmp_path, tmp_path / "root", tmp_path / "output")
    assert (request.stage, request.digest, request.code) == ("operator", "a" * 64, "b" * 64)
    assert request.inputs == {"download": Path(tmp_path / "download")}
    assert request.contents == {"download": "c" * 64}


def test_the_end_is_told_last(tmp_path):
    request = Request(
        tmp_path, tmp_path, "download", "", "", load_configuration(CONFIGS / "burgers_tiny.yaml"), {}, {}
    )
    assert not (tmp_path / "outcome.json").exists()
    request.finish({"problems": {}})
    assert json.loads((tmp_path / "outcome.json").read_text()) == {"summary": {"problems": {}}}
