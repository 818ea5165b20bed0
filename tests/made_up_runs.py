"""Directories of runs that were never run: enough for what lists, ranks and compares them."""

import json
from pathlib import Path
from typing import Any

import yaml
from small_run import STAGES, WAVE, Small, make_curves, make_records

from ups.artifacts.manifest import MANIFEST, Manifest

RATE = 3.6
"""US dollars an hour: a thousandth of a dollar a second."""


def make_run(
    root: Path,
    name: str = "20260102T030405Z-small-0123abcd",
    *,
    error: float = 1.0,
    stages: tuple[str, ...] = STAGES,
    hits: tuple[str, ...] = (),
    small: Small = WAVE,
    test: str = "the test trajectories",
    rate: float | None = RATE,
    **changes: Any,
) -> Path:
    """A run, evaluated if it came so far.

    Args:
        error: factor on the errors of the trained models; of trajectories, by turns a little more and less.
        stages: that are there.
        hits: of these, what it found.
        test: content of its test trajectories.
        changes: of the configuration, by key.
    """
    run = root / "runs" / name
    (run / "logs").mkdir(parents=True)
    configuration = {
        "name": name.split("-")[1],
        "seed": 7,
        "execution": {"device": "cpu"},
        "training": {"operator": {"learning_rate": 0.002}},
        "resources": {"hourly_rate_usd": rate},
        **changes,
    }
    (run / "config.yaml").write_text(yaml.safe_dump(configuration))
    plan = [{"stage": s, "digest": s, "verdict": "MISS", "reason": "never built"} for s in STAGES]
    environment = {
        "processor": "A processor", "cores": 2, "commit": "c0ffee00" * 5, "uncommitted_changes": False,
        "command": "ups run small.yaml --set seed=7",
    }  # fmt: skip
    rows = {
        stage: {
            "digest": stage,
            "path": f"../../artifacts/{stage}/{test if stage == 'download' else name}",
            "hit": stage in hits,
            "reason": "sealed" if stage in hits else "never built",
            "seconds": 10.0,
            "seconds_from_scratch": 15.0 if stage == "download" else 10.0,
            "summary": {},
        }
        for stage in stages
    }
    for file, content in (("plan", plan), ("env", environment), ("artifacts", rows)):
        (run / f"{file}.json").write_text(json.dumps(content))
    if "evaluate" in stages:
        parts = {"burgers1d/test": {"stage": "data", "digest": "d", "content": test}}
        data = run / rows["download"]["path"]
        data.mkdir(parents=True, exist_ok=True)
        manifest = Manifest("download", "d", {}, {}, [], parts=parts)
        (data / MANIFEST).write_text(json.dumps(manifest.to_json(), indent=2, sort_keys=True))
        records, curves = make_records(small), make_curves(small)
        trained = [model for model in small.errors if model not in {"persistence", "spatial_mean"}]
        for record in records:
            if record["model"] in trained and record["metric"] == "trajectory_relative_l2":
                record["value"] *= error
                record["standard_error"] *= error
        for model in trained:
            values = curves["models"][model]["trajectory"]
            curves["models"][model]["trajectory"] = [
                error * value * (1.01 if place % 2 else 0.99) for place, value in enumerate(values)
            ]
        (run / "metrics.json").write_text(json.dumps(records))
        evaluated = run / rows["evaluate"]["path"]
        evaluated.mkdir(parents=True)
        (evaluated / "curves.json").write_text(json.dumps({"burgers1d": curves}))
        (run / "report.html").write_text("a report")
    return run
