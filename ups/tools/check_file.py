"""Check files in PDEBench's layout: the process behind `ups data check`.

No stage of the chain. Its request: {"files", "problem" | null, "parameters" | null, "boundary" | null, "rows" | null,
"known" ({path: sha256} of an earlier use, optional)}; its summary: a record per file, whose "error" says what is
wrong with it ({"type", "message"}, or null). One wrong file does not stop the check of the others, and its record holds what was found before the error.

Checked in this order: checksums, problem, layout, values of every row, conservation, distance from our own
solver. A file with published name and size must have the published MD5.
"""

import hashlib
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ups.artifacts.checksums import blocks_of
from ups.artifacts.files import storage_error
from ups.data.hdf5 import open_checked
from ups.data.layout import PROBLEM_ATTRIBUTE, axes_text
from ups.data.pdebench import PDEBenchFile, fitting_problems, inspect, read_trajectories
from ups.errors import DataError, IntegrityError, UpsError
from ups.evaluation.metrics import mass_drift
from ups.problems import PROBLEMS, ProblemName
from ups.problems.ideal_gas import to_conserved
from ups.problems.published import PUBLISHED, PublishedFile
from ups.tools.solver_distance import solver_distance
from ups.tools.tool_main import tool_main

log = logging.getLogger(__name__)

_BLOCK = 64  # rows read together
_NAMED = 10  # bad rows that are named


def check_files(request: dict[str, Any]) -> list[dict[str, Any]]:
    """Check, and go on behind what is wrong."""
    records = []
    for number, name in enumerate(request["files"], start=1):
        record: dict[str, Any] = {"path": name, "error": None}
        try:
            _check(record, Path(name), request)
        except UpsError as error:
            record["error"] = _error_record(error)
        except OSError as error:
            record["error"] = _error_record(storage_error(error, Path(name)))
        verdict = "wrong" if record["error"] else "good"
        log.info("checked %d/%d: %s  %s", number, len(request["files"]), name, verdict)
        records.append(record)
    return records


def _error_record(error: UpsError) -> dict[str, str]:
    return {"type": type(error).__name__, "message": str(error)}


def _check(record: dict[str, Any], path: Path, request: Mapping[str, Any]) -> None:
    """Fill the record of one file, as far as it goes."""
    if path.is_file():
        record["bytes"] = path.stat().st_size
        record["sha256"], record["md5"] = _sums(path)
        _check_known(record["sha256"], request.get("known", {}).get(str(path)), path)
    published = _published(path)
    name, record["problem_from"] = _recognise(path, request["problem"], published)
    if published is not None and published.problem_name != name:
        published = None
    record["problem"] = name
    described = inspect(
        path,
        problem=name,
        parameters=request["parameters"] or (published and published.parameters),
        boundary=request["boundary"] or (published and published.boundary),
    )
    record |= _layout(described)
    record["md5_as_published"] = _check_published(record["md5"], published, described)
    scanned = _Scan(described)
    scanned.read(described.rows if request["rows"] is None else min(request["rows"], described.rows))
    record |= scanned.record()
    record["solver_distance"] = solver_distance(
        described,
        rows=scanned.good_rows(),
        genuine=published is not None or record["problem_from"] != "attribute",
    )
    if scanned.bad:
        raise next(iter(scanned.bad.values()))


def _sums(path: Path) -> tuple[str, str]:
    """sha256 and MD5 in one pass: the one we know files by, and the one PDEBench does."""
    strong, published = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    for block in blocks_of(path):
        strong.update(block)
        published.update(block)
    return strong.hexdigest(), published.hexdigest()


def _check_known(found: str, known: str | None, path: Path) -> None:
    if known is not None and found != known:
        raise IntegrityError(
            f"has the sha256 {found}, and had {known} when it was first used",
            where=str(path),
            fix="if nobody changed it on purpose, bits have flipped: check the disk, and restore the file",
        )


def _published(path: Path) -> PublishedFile | None:
    """The published file that a name belongs to: its own, or that of rows cut out of it (NAME.rows*.hdf5)."""
    return PUBLISHED.get(path.name.removesuffix(".hdf5").partition(".rows")[0])


def _recognise(
    path: Path, given: ProblemName | None, published: PublishedFile | None
) -> tuple[ProblemName, str]:
    """The problem, and what says so."""
    with open_checked(path) as file:
        stored = file.text(PROBLEM_ATTRIBUTE)
    if stored is not None and stored not in PROBLEMS:
        raise DataError(
            f"is a file of {stored!r}, and the problems are {', '.join(PROBLEMS)}",
            where=str(path),
            fix="check where the file comes from",
        )
    for name in PROBLEMS:
        if stored == name and given in {None, name}:
            return name, "attribute"
    if given is not None:
        return given, "request"
    if published is not None:
        return published.problem_name, "file name"
    found = fitting_problems(path)
    if len(found) == 1:
        return found[0], "arrays and parameters"
    raise DataError(
        f"has the arrays and parameters of {' and of '.join(found)}"
        if found
        else "tells its problem neither by an attribute, nor by the name of a published file, nor by its arrays and "
        "the equation's parameters (Nu, beta ...)",
        where=str(path),
        fix=f"pass --problem, one of {', '.join(PROBLEMS)}",
    )


def _layout(described: PDEBenchFile) -> dict[str, Any]:
    problem, times, original = described.problem, described.times, described.original_rows
    return {
        "arrays": {array.key: axes_text(array) for array in problem.arrays},
        "rows": described.rows,
        "frames": described.frames,
        "grid": list(described.grid),
        "times": None if problem.is_map else {"first": float(times[0]), "last": float(times[-1])},
        "parameters": described.parameters,
        "boundary": described.boundary,
        "data_version": described.data_version,
        "original_rows": None
        if original is None
        else {"smallest": int(original.min()), "largest": int(original.max())},
    }


def _check_published(md5: str, published: PublishedFile | None, described: PDEBenchFile) -> bool | None:
    """Whether the MD5 is the published one; None where the file is not a whole published one.

    Raises:
        IntegrityError: the file has a published name and extent, and another sum.
    """
    if published is None or described.path.name != published.file_name or described.rows != published.rows:
        return None
    if md5 != published.md5:
        raise IntegrityError(
            f"has the MD5 {md5}, and the published file {published.md5}",
            where=str(described.path),
            fix=f"fetch it again: `ups data fetch {published.name}`",
        )
    return True


class _Scan:
    """All rows of a file, block by block: ranges, bad rows, and how well the conserved fields are conserved."""

    def __init__(self, described: PDEBenchFile) -> None:
        self.described = described
        self.bad: dict[int, DataError] = {}
        self.rows = 0
        self.lowest = np.full(len(described.problem.fields), np.inf)
        self.highest = -self.lowest
        self.drifts: dict[str, list[torch.Tensor]] = {}

    def read(self, rows: int) -> None:
        """Read the first rows. A block with a bad row is read row by row."""
        for start in range(0, rows, _BLOCK):
            block = np.arange(start, min(start + _BLOCK, rows))
            try:
                self._see(block)
            except DataError:
                for row in block.tolist():
                    try:
                        self._see(np.array([row]))
                    except DataError as error:
                        self.bad[row] = error
        self.rows = rows

    def good_rows(self) -> NDArray[np.int64]:
        return np.setdiff1d(np.arange(self.rows), list(self.bad))

    def record(self) -> dict[str, Any]:
        fields = self.described.problem.fields
        ranges = zip(fields, self.lowest.tolist(), self.highest.tolist(), strict=True)
        some = len(self.bad) < self.rows
        return {
            "checked_rows": self.rows,
            "values": {field.name: {"smallest": low, "largest": high} for field, low, high in ranges if some},
            "bad_rows": {"count": len(self.bad), "first": sorted(self.bad)[:_NAMED]},
            "conservation": self._conservation(),
        }

    def _see(self, rows: NDArray[np.int64]) -> None:
        problem = self.described.problem
        read = read_trajectories(
            self.described.path,
            rows,
            problem=problem.name,
            parameters=self.described.parameters,
            boundary=self.described.boundary,
        )
        # Of a map the last frame, in which everything is known.
        values = (read.fields[:, -1:] if problem.is_map else read.fields).reshape(-1, len(problem.fields))
        self.lowest = np.minimum(self.lowest, values.min(axis=0))
        self.highest = np.maximum(self.highest, values.max(axis=0))
        if self.described.boundary != "periodic":
            return
        states = to_conserved(read.fields.astype(np.float64)) if problem.conserved_fields else read.fields
        fields = problem.conserved_fields or problem.fields
        state = torch.from_numpy(states).double().flatten(2, -2)
        drift = mass_drift(state[:, 1:], state[:, 0], fields).amax(dim=1)
        for channel, field in enumerate(fields):
            if field.conserved:
                self.drifts.setdefault(field.name, []).append(drift[:, channel])

    def _conservation(self) -> dict[str, Any] | str:
        """Per field the drift of the mean in units of the first frame's root mean square, over the rows."""
        if not self.drifts:
            return (
                "nothing is conserved here" if self.described.boundary != "periodic" else "no row can be used"
            )
        summary = {}
        for name, blocks in self.drifts.items():
            drifts = torch.cat(blocks)
            defined = drifts[drifts.isfinite()]  # a first frame of zeros has no scale
            summary[name] = {
                "rows": len(defined),
                "median": defined.median().item() if len(defined) else None,
                "largest": defined.max().item() if len(defined) else None,
            }
        return summary


if __name__ == "__main__":
    sys.exit(tool_main("ups.tools.check_file", check_files))
