"""A request says all that a stage process needs, and comes back from its file as it was."""

import json
import os
from pathlib import Path

import pytest
from command_line import CONFIGS

from ups.config import load_configuration
from ups.runtime.request import Request


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_what_is_written_is_read_back(tmp_path, path):
    configuration = load_configuration(path, {"execution.device": "cpu", "execution.precision": "fp32"})
    written = {
        "root": str(tmp_path / "root"),
        "stage": "operator",
        "digest": "a" * 64,
        "configuration": configuration.model_dump(mode="json"),
        "inputs": {"download": str(tmp_path / "download")},
        "derivation": {"inputs": {"download": "c" * 64}},
        "parts": {},
    }
    (tmp_path / "request.json").write_text(json.dumps(written))
    request = Request.read(tmp_path)
    assert request.configuration == configuration
    assert list(request.configuration.problems) == list(configuration.problems)
    assert (request.work, request.root, request.output) == (tmp_path, tmp_path / "root", tmp_path / "output")
    assert (request.stage, request.digest) == ("operator", "a" * 64)
    assert request.inputs == {"download": Path(tmp_path / "download")}
    assert request.contents == {"download": "c" * 64}


def test_the_end_is_told_last(tmp_path, monkeypatch):
    """When all bytes of the artifact are on the disk: a power cut may follow at once."""
    request = Request(
        tmp_path, tmp_path, "download", "", load_configuration(CONFIGS / "burgers_tiny.yaml"), {}, {}
    )
    assert not (tmp_path / "outcome.json").exists()
    (tmp_path / "output" / "logs").mkdir(parents=True)
    files = [tmp_path / "output" / name for name in ("model.safetensors", "logs/metrics.jsonl")]
    for file in files:
        file.write_text("content")
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    request.finish({"problems": {}})
    place = synced.index((tmp_path / "outcome.json").stat().st_ino)
    assert {path.stat().st_ino for path in [*files, files[1].parent, request.output]} == set(synced[:place])
    assert json.loads((tmp_path / "outcome.json").read_text()) == {"summary": {"problems": {}}, "parts": {}}
