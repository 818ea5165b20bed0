"""Figures of a run, drawn once for the same numbers and the same drawing code, whichever run shows them."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

from ups.artifacts import Artifact, Store
from ups.artifacts.checksums import fast_checksum
from ups.artifacts.files import read_json, read_records
from ups.artifacts.identity import code_identity, digest_of
from ups.config.schema import TRAINING_STAGES
from ups.errors import IntegrityError
from ups.report.catalogue import FIGURES, TRAINING, entry

STAGE = "figures"


def bring_figures(run: Path) -> None:
    """Put the figures of a finished run into its directory, `figures/PROBLEM/*` and that of the training.

    They are kept as an artifact, so that another run of the same results need not draw them. Nothing points to it:
    `ups cache gc` may remove it.

    Raises:
        IntegrityError: what a figure shows is missing or damaged.
        StorageError: a file cannot be read or written.
    """
    pointers = read_json(run / "artifacts.json")
    trained = [stage for stage in TRAINING_STAGES if stage in pointers]  # a later version may have more
    paths = {
        stage: run / str(entry(pointers, stage, "path", where=str(run / "artifacts.json")))
        for stage in (*trained, "evaluate")
    }
    records = {stage: paths[stage] / "logs" / "metrics.jsonl" for stage in trained}
    evaluated = paths["evaluate"].resolve()
    store = Store(evaluated.parents[2])
    found = store.find("evaluate", evaluated.name)
    if found is None:
        raise IntegrityError("the run's evaluation is gone", where=str(evaluated), fix="run it again")
    if missing := [str(path) for path in records.values() if not path.is_file()]:
        raise IntegrityError("is gone", where=missing[0], fix="run it again")
    derivation: dict[str, Any] = {
        "stage": STAGE,
        "code": code_identity("ups.report.figures"),
        "inputs": {"evaluate": found.manifest.content}
        | {stage: fast_checksum(path) for stage, path in records.items()},
    }
    artifact = _drawn(store, derivation, found, records)
    shutil.copytree(artifact.path / FIGURES, run / FIGURES, dirs_exist_ok=True)


def _drawn(
    store: Store, derivation: dict[str, Any], evaluated: Artifact, records: dict[str, Path]
) -> Artifact:
    digest = digest_of(derivation)
    with store.lock(STAGE, digest):
        artifact = store.sound(STAGE, digest, set_aside=True)
        if artifact is not None:
            return artifact
        started = time.monotonic()
        _draw(store.work(STAGE, digest) / "output" / FIGURES, evaluated.path, records)
        return store.seal(
            STAGE,
            digest,
            derivation=derivation,
            inputs={"evaluate": evaluated},
            summary={},
            seconds=time.monotonic() - started,
        )


def _draw(directory: Path, evaluated: Path, records: dict[str, Path]) -> None:
    # Seconds of imports, which not every report needs.
    from safetensors.numpy import load_file

    from ups.report.figures import draw_problem, draw_training

    curves = json.loads((evaluated / "curves.json").read_text())
    table = json.loads((evaluated / "metrics.json").read_text())
    for problem, shown in curves.items():
        (directory / problem).mkdir(parents=True, exist_ok=True)
        examples = load_file(evaluated / "examples" / f"{problem}.safetensors")
        own = [record for record in table if record["problem"] == problem]
        for name, content in draw_problem(shown, examples, own).items():
            (directory / problem / name).write_bytes(content)
    training = {stage: read_records(path) for stage, path in records.items()}
    (directory / TRAINING).write_bytes(draw_training(training))
