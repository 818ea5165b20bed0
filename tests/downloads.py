"""The download stage in this process, and artifacts like its own."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ups.artifacts import Store
from ups.artifacts.files import write_json
from ups.config import Configuration
from ups.config.schema import STAGES
from ups.data.dataset import PART_DESCRIPTION, read_description
from ups.data.pdebench_writer import write_trajectories
from ups.data.splits import TRAJECTORIES
from ups.pipeline.plan import derive_parts
from ups.runtime.request import Request
from ups.stages import download


def run_download(root: Path, configuration: Configuration) -> Path:
    """What the stage writes, beside the trajectories in root/artifacts/data as its artifact would lie."""
    request = stage_request(root, "download", configuration)
    download.run(request)
    return request.output


def stage_request(root: Path, stage: str, configuration: Configuration, digest: str = "") -> Request:
    """A stage to run in this process, behind others that did; it writes to root/artifacts/STAGE/output."""
    inputs = STAGES[stage].inputs
    return Request(
        root / "artifacts" / stage,
        root,
        stage,
        digest,
        configuration,
        {name: root / "artifacts" / name / "output" for name in inputs},
        dict.fromkeys(inputs, "0" * 64),
        derive_parts(configuration, Store(root)) if stage == "download" else {},
    )


def trajectory_file(artifact: Path, name: str, split: str) -> Path:
    """Of a problem and split of a download artifact."""
    return artifact / read_description(artifact)[name]["parts"][split] / TRAJECTORIES


def write_splits(
    artifact: Path,
    name: str,
    fields: NDArray[np.floating],
    rows: Mapping[str, list[int]],
    *,
    numbers: list[int] | None = None,
    title: str,
    version: str = "made up",
    written: Mapping[str, Any],
) -> dict[str, str]:
    """Files of some rows of `fields` for each split; the `parts` of the problem's description.

    numbers: of the rows in the original file. written: the other arguments of `write_trajectories`.
    """
    for split, chosen in rows.items():
        directory = artifact / name / split
        directory.mkdir(parents=True)
        write_trajectories(directory / TRAJECTORIES, fields[chosen], **written)
        original = [row if numbers is None else numbers[row] for row in chosen]
        write_json(directory / PART_DESCRIPTION, {"title": title, "version": version, "rows": original})
    return {split: f"{name}/{split}" for split in rows}


def outcome(root: Path) -> dict[str, Any]:
    """What the stage reported."""
    return json.loads((root / "artifacts" / "download" / "outcome.json").read_text())["summary"]["problems"]
