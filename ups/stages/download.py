"""download: trajectories of every problem of the run, in PDEBench's layout.

Those of each problem and split are an artifact of their own, `data`, found or built here: runs that differ in their
models, mixes or resolutions share them, and a larger test set leaves the train split as it is.
"""

import importlib
import json
import logging
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from ups.artifacts import Artifact, Store
from ups.artifacts.files import write_text
from ups.artifacts.identity import digest_of
from ups.artifacts.store import BusyError
from ups.config.data import ProblemData
from ups.config.schema import DATA
from ups.data.dataset import DESCRIPTION, PART_DESCRIPTION, StoredTrajectories, time_step
from ups.errors import DataError
from ups.runtime.request import Request

log = logging.getLogger(__name__)

Derivations = Mapping[str, dict[str, Any]]
"""By split, what the key of its trajectories is taken of."""


def run(request: Request) -> None:
    """Find or make the trajectories of each problem and split; write `splits.json`, which says where they are.

    Raises:
        DataError: splits of a problem share trajectories.
    """
    store = Store(request.root)
    parts: dict[str, Artifact] = {}
    described: dict[str, dict[str, Any]] = {}
    summary: dict[str, dict[str, Any]] = {}
    for name, data in request.configuration.problems.items():
        built = _build(name, data, request.parts[name], request, store)
        parts |= {f"{name}/{split}": artifact for split, artifact in built.items()}
        described[name] = {
            "problem": data.problem.name,
            "variables": data.used_variables(),
            "space_stride": data.stride,
            "parts": {split: f"../../{DATA}/{artifact.digest}" for split, artifact in built.items()},
        }
        splits = {
            split: json.loads((artifact.path / PART_DESCRIPTION).read_text())
            for split, artifact in built.items()
        }
        _require_disjoint(name, {split: part["rows"] for split, part in splits.items()})
        about = StoredTrajectories(described[name], {split: each.path for split, each in built.items()}).about
        summary[name] = {
            "problem": data.problem.name,
            "title": about["title"],
            "version": about["version"],
            "frames": len(about["times"]),
            "frame_interval": time_step(about["problem"], about["times"]),
            "boundary": about["boundary"],
            "grid": [len(axis) for axis in about["coordinates"]],
            "trajectories": {split: len(part["rows"]) for split, part in splits.items()},
        }
    request.output.mkdir(parents=True, exist_ok=True)
    write_text(request.output / DESCRIPTION, json.dumps(described))
    request.finish({"problems": summary}, parts)


def _build(
    name: str, data: ProblemData, derivations: Derivations, request: Request, store: Store
) -> dict[str, Artifact]:
    """The trajectories of every split of a problem; what is missing is made in one go, by the modules of its source."""
    digests = {split: digest_of(derivation) for split, derivation in derivations.items()}
    found = {split: store.sound(DATA, digest) for split, digest in digests.items()}
    with ExitStack() as locks:
        # In one order in all processes: two that wait for each other would wait for ever.
        for split in sorted(found, key=lambda split: digests[split]):
            if found[split] is None:
                try:
                    locks.enter_context(store.lock(DATA, digests[split], timeout=0))
                except BusyError:
                    log.info("%s/%s: another process is making it; waiting", name, split)
                    locks.enter_context(store.lock(DATA, digests[split]))
                found[split] = store.sound(DATA, digests[split], set_aside=True)
        missing = {split: store.work(DATA, digests[split]) for split in found if found[split] is None}
        if missing:
            found |= _make(name, data, request, store, missing, derivations)
    log.info(
        "%s: %s", name, ", ".join(f"{split} {'made' if split in missing else 'here'}" for split in digests)
    )
    return {split: artifact for split, artifact in found.items() if artifact is not None}


def _make(
    name: str,
    data: ProblemData,
    request: Request,
    store: Store,
    missing: Mapping[str, Path],
    derivations: Derivations,
) -> dict[str, Artifact]:
    """missing: the locked work directory of each split."""
    for work in missing.values():
        (work / "output").mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    made = importlib.import_module(data.source_modules[0]).make(name, data, request, missing)
    seconds = (time.monotonic() - started) / sum(len(part["rows"]) for part in made.values())
    sealed = {}
    for split, part in made.items():
        write_text(missing[split] / "output" / PART_DESCRIPTION, json.dumps(part))
        sealed[split] = store.seal(
            DATA,
            digest_of(derivations[split]),
            derivation=derivations[split],
            inputs={},
            summary={
                "title": part["title"],
                "version": part["version"],
                "split": split,
                "trajectories": len(part["rows"]),
            },
            seconds=seconds * len(part["rows"]),
        )
    return sealed


def _require_disjoint(name: str, rows: Mapping[str, list[int]]) -> None:
    """Splits that were made for different runs may have met in the middle of a file."""
    seen: dict[str, list[int]] = {}
    for split, numbers in rows.items():
        for other, before in seen.items():
            if common := np.intersect1d(numbers, before).size:
                raise DataError(
                    f"{split} and {other} share {common} trajectories",
                    where=f"data of {name}",
                    fix="ask for fewer",
                )
        seen[split] = numbers
