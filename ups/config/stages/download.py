"""download: what trajectories are a function of."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ups.config.data import DataFile, PublishedData, how_read
from ups.config.sizes import KeptShape
from ups.config.stage import ContentOf, Stage
from ups.problems.generated import SPLITS, Generated, ProblemData

if TYPE_CHECKING:
    from ups.config.schema import Configuration

_SPLIT_BYTES = 15_000  # of a problem: the header of its HDF5 file, its description, its manifest


def _settings(configuration: "Configuration", content_of: ContentOf) -> dict[str, Any]:
    return {
        "data": {
            name: how_read(data)
            | {
                "source": _source(data, configuration, content_of),
                "splits": {split: _split(data, split) for split in SPLITS},
            }
            for name, data in configuration.problems.items()
        }
    }


def _source(data: ProblemData, configuration: "Configuration", content_of: ContentOf) -> dict[str, Any]:
    """What the trajectories of all splits of a problem are a function of."""
    settings = data.model_dump(exclude={"resolution", "space_stride", "variables", "trajectories", "rows"})
    match data:
        case Generated():
            # Threads solve blocks, which do not depend on them.
            settings["device"] = configuration.execution.device
        case DataFile():
            # A file is what it holds, wherever it lies.
            del settings["path"]
            settings["sha256"] = content_of(Path(data.path))
        case PublishedData():
            # A published file is its sum, wherever it comes from and however long that may take.
            settings["md5"] = data.published.md5
            del settings["address"], settings["deadline_hours"]
    return settings


def _split(data: ProblemData, split: str) -> dict[str, Any]:
    """Which of them a split has."""
    if isinstance(data, PublishedData) and data.rows is not None:
        return {"rows": data.rows.by_split()[split]}
    settings = {"trajectories": getattr(data.counts, split)}
    if isinstance(data, DataFile) and data.test_first is None and split == "validation":
        settings["test_trajectories"] = data.counts.test  # they come first
    return settings


def _bytes(
    configuration: "Configuration", shapes: Mapping[str, KeptShape], missing: Mapping[str, int]
) -> int:
    return sum(
        _problem_bytes(data, missing[name], shapes[name])
        for name, data in configuration.problems.items()
        if missing[name]
    )


def _problem_bytes(data: ProblemData, rows: int, shape: KeptShape) -> int:
    """Trajectories on the source's grid (what reads them takes every n-th point), and what they come from.

    That is the blocks of a generation, which lie beside the file until it is sealed, or the published file.
    """
    stored = data.stored_grid or tuple(n * getattr(data, "space_stride", 1) for n in shape.grid)
    frames = 1 if data.problem.is_map else shape.frames
    values = rows * frames * math.prod(stored) * data.channels * 4
    size = values + 3 * _SPLIT_BYTES + _index_bytes(rows)
    if isinstance(data, Generated):
        size += values
    if isinstance(data, PublishedData):
        published, per_row = data.published, data.published.frames * math.prod(stored) * data.channels * 4
        whole = published.bytes or published.rows * per_row
        size += whole if data.rows is None else rows * per_row
    return size


def _index_bytes(rows: int) -> int:
    """Lists of row numbers, in text."""
    return 3 * rows * (2 + len(str(rows)))


STAGE = Stage(
    "download",
    inputs=(),
    settings=_settings,
    bytes=_bytes,
    parallel=False,
    found_by_name=lambda c: [module for data in c.problems.values() for module in data.source_modules],
)
