"""A small finished run made of real files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_run import MIX, STAGES, WAVE, Small, make_curves, make_examples, make_records, make_training

from ups.report.catalogue import figures_of
from ups.report.figures import draw_problem, draw_training


@pytest.fixture(scope="session")
def drawn() -> dict[str, bytes]:
    """All figures of the wave by file name, drawn once."""
    return draw_problem(make_curves(), make_examples(), make_records()) | {
        "training.svg": draw_training(make_training())
    }


@pytest.fixture(scope="session")
def mixed_figures(drawn: dict[str, bytes]) -> dict[str, dict[str, bytes]]:
    """Figures of a mix of three problems, by problem and file name: copies of two of the wave's, told apart by their
    ends. A page embeds what it finds.
    """
    kinds = {"svg": drawn["spectrum.svg"], "png": drawn["space_time.png"]}
    return {
        problem: {
            name: kinds[name[-3:]] + f"<!-- {problem} {name} -->".encode()
            for name in figures_of(len(small.grid), is_map=small.is_map, by_lead=not small.is_map)
        }
        for problem, small in MIX.items()
    }


@pytest.fixture
def make_run(tmp_path: Path, drawn: dict[str, bytes]) -> Callable[..., Path]:
    """A function that writes a finished run of one problem and returns its directory.

    edit: gets the file contents by name (records, curves, artifacts, plan, environment, configuration) and
    changes them.
    """

    def write(edit: Callable[[dict[str, Any]], None] = lambda contents: None) -> Path:
        return write_run(tmp_path, {"burgers1d": WAVE}, {"burgers1d": drawn}, drawn["training.svg"], edit)

    return write


@pytest.fixture
def make_mixed_run(
    tmp_path: Path, drawn: dict[str, bytes], mixed_figures: dict[str, dict[str, bytes]]
) -> Callable[..., Path]:
    """Like `make_run`, of a mix of a wave, a gas flow and a map."""

    def write(edit: Callable[[dict[str, Any]], None] = lambda contents: None) -> Path:
        return write_run(tmp_path, MIX, mixed_figures, drawn["training.svg"], edit)

    return write


def write_run(
    root: Path,
    problems: dict[str, Small],
    figures: dict[str, dict[str, bytes]],
    training: bytes,
    edit: Callable[[dict[str, Any]], None],
) -> Path:
    """Write a finished run."""
    run = root / "runs" / "20260102T030405Z-small-0123abcd"
    run.mkdir(parents=True)
    digests = {stage: f"{place:x}" * 64 for place, stage in enumerate(STAGES)}
    summaries: dict[str, dict[str, Any]] = {stage: {} for stage in STAGES}
    summaries["autoencoder"] = {"validation_relative_l2": 0.00777, "parameters": 12345}
    summaries["cache_encode"] = {
        "stored": True,
        "float16_round_trip": {"wave": {"fields/u": {"relative_l2": 0.000222, "largest": 0.00333}}},
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
        "records": [record for name, small in problems.items() for record in make_records(small, name)],
        "curves": {name: make_curves(small) for name, small in problems.items()},
    }
    edit(contents)
    (run / "config.yaml").write_text(yaml.safe_dump(contents["configuration"], sort_keys=False))
    files = {"plan": "plan", "artifacts": "artifacts", "environment": "env", "records": "metrics"}
    for key, name in files.items():
        (run / f"{name}.json").write_text(json.dumps(contents[key]))
    evaluated = run / contents["artifacts"]["evaluate"]["path"]
    evaluated.mkdir(parents=True)
    (run / "figures").mkdir()
    (evaluated / "curves.json").write_text(json.dumps(contents["curves"]))
    (run / "figures" / "training.svg").write_bytes(training)
    for problem, drawn in figures.items():
        (run / "figures" / problem).mkdir()
        for name, content in drawn.items():
            if name != "training.svg":
                (run / "figures" / problem / name).write_bytes(content)
    return run
