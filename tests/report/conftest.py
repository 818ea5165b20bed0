"""A small finished run made of real files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_run import STAGES, make_curves, make_examples, make_records, make_training

from ups.report.figures import draw_all


@pytest.fixture(scope="session")
def drawn() -> dict[str, bytes]:
    """All figures by file name, drawn once."""
    return draw_all(make_curves(), make_examples(), make_training())


@pytest.fixture
def make_run(tmp_path: Path, drawn: dict[str, bytes]) -> Callable[..., Path]:
    """A function that writes a finished run and returns its directory.

    edit: gets the file contents by name (records, curves, artifacts, plan, environment, configuration) and
    changes them.
    """

    def write(edit: Callable[[dict[str, Any]], None] = lambda contents: None) -> Path:
        run = tmp_path / "runs" / "20260102T030405Z-small-0123abcd"
        run.mkdir(parents=True)
        digests = {stage: f"{place:x}" * 64 for place, stage in enumerate(STAGES)}
        summaries: dict[str, dict[str, Any]] = {stage: {} for stage in STAGES}
        summaries["autoencoder"] = {"validation_relative_l2": 0.00777, "parameters": 12345}
        summaries["cache_encode"] = {
            "float16_round_trip": {"fields/u": {"relative_l2": 0.000222, "largest": 0.00333}},
            "trajectories": 24,
        }
        contents: dict[str, Any] = {
            "configuration": {"name": "small", "seed": 7, "note": "plain"},
            "plan": [
                {"stage": s, "digest": digests[s], "verdict": "MISS", "reason": "never built"} for s in STAGES
            ],
            "artifacts": {
                stage: {
                    "digest": digests[stage],
                    "path": f"../../artifacts/{stage}/{digests[stage]}",
                    "hit": False,
                    "reason": "never built",
                    "seconds": 10.0 * (place + 1),
                    "summary": summaries[stage],
                }
                for place, stage in enumerate(STAGES)
            },
            "environment": {
                "python": "3.11.7",
                "platform": "Linux",
                "processor": "A processor",
                "cores": 2,
                "memory_bytes": 2**34,
                "commit": "c0ffee",
                "uncommitted_changes": True,
                "libraries": {"torch": "2.13.0"},
                "command": "ups run small.yaml",
            },
            "records": make_records(),
            "curves": make_curves(),
        }
        edit(contents)
        (run / "config.yaml").write_text(yaml.safe_dump(contents["configuration"], sort_keys=False))
        files = {"plan": "plan", "artifacts": "artifacts", "environment": "env", "records": "metrics"}
        for key, name in files.items():
            (run / f"{name}.json").write_text(json.dumps(contents[key]))
        evaluated = run / contents["artifacts"]["evaluate"]["path"]
        (evaluated / "figures").mkdir(parents=True)
        (evaluated / "curves.json").write_text(json.dumps(contents["curves"]))
        for name, content in drawn.items():
            (evaluated / "figures" / name).write_bytes(content)
        return run

    return write
