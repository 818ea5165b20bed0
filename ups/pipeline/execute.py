"""Run one stage to a sealed artifact, or find it sealed."""

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ups.artifacts import Artifact, Store
from ups.artifacts.files import read_json, storage_error, write_json
from ups.artifacts.identity import digest_of
from ups.config import Configuration
from ups.config.schema import StageName
from ups.errors import IntegrityError, PreflightError
from ups.pipeline.graph import GRAPH
from ups.pipeline.launch import launch
from ups.pipeline.outcome import OUTCOME_FILE, classify
from ups.pipeline.plan import check, kept_shape
from ups.pipeline.prediction import predicted_bytes

METRICS = Path("output") / "logs" / "metrics.jsonl"


@dataclass(frozen=True)
class Listener:
    """Who wants to hear of a stage's progress.

    on_line: each line the stage prints. on_record: each record of its metrics.jsonl, those of an earlier,
    interrupted launch first.
    """

    on_line: Callable[[str], None]
    on_record: Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Built:
    """A stage's artifact, and whether it was there already."""

    artifact: Artifact
    hit: bool
    reason: str


def execute(
    name: StageName,
    recipe: dict[str, Any],
    configuration: Configuration,
    inputs: dict[StageName, Artifact],
    store: Store,
    listener: Listener,
    log_file: Path,
) -> Built:
    """Return the artifact of a stage, built under its lock if it is not there.

    A damaged artifact is quarantined and rebuilt. An interrupted build goes on from its checkpoints.

    Raises:
        UpsError: of the kind that `ups.pipeline.outcome` finds in the files of the stage.
        PreflightError: the disk has no room for what the stage will write.
        StorageError: sealing failed.
    """
    digest = digest_of(recipe)
    for artifact in inputs.values():
        store.verify(artifact)
    with store.lock(name, digest):
        present: dict[StageName, Artifact | None] = {**inputs}
        artifact, reason = check(store, name, digest, present)
        if artifact is not None:
            return Built(artifact, hit=True, reason=reason)
        if store.path(name, digest).exists():
            listener.on_line(f"{name}: {reason}; moved to quarantine, building anew")
            store.quarantine(name, digest, reason=reason)
        work = store.work(name, digest)
        _prepare(work, name, recipe, configuration, inputs)
        _require_space(work, name, configuration)
        started = time.monotonic()
        if not (work / OUTCOME_FILE).exists():  # else: killed between the stage's end and sealing
            _launch(work, name, configuration, listener, log_file)
        outcome = _read_outcome(work)
        sealed = store.seal(
            name,
            digest,
            recipe=recipe,
            inputs={**inputs},
            summary=outcome["summary"],
            seconds=time.monotonic() - started,
        )
    return Built(sealed, hit=False, reason=reason)


def _prepare(
    work: Path,
    name: StageName,
    recipe: dict[str, Any],
    configuration: Configuration,
    inputs: dict[StageName, Artifact],
) -> None:
    """Write the request; work done for inputs of other content is thrown away first."""
    contents = {stage: artifact.manifest.content for stage, artifact in inputs.items()}
    request = work / "request.json"
    if request.exists():
        try:
            stale = read_json(request)["contents"] != contents
        except (IntegrityError, KeyError):
            stale = True
        if stale:
            shutil.rmtree(work)
    write_json(
        request,
        {
            "stage": name,
            "digest": digest_of(recipe),
            "code": recipe["code"],
            "configuration": configuration.model_dump(mode="json"),
            "inputs": {stage: str(artifact.path) for stage, artifact in inputs.items()},
            "contents": contents,
        },
    )


def _require_space(work: Path, name: StageName, configuration: Configuration) -> None:
    frames, points = kept_shape(configuration)
    needed = predicted_bytes(name, configuration, frames, points)
    already = sum(path.stat().st_size for path in work.rglob("*") if path.is_file())
    free = shutil.disk_usage(work).free
    if needed - already > free:
        raise PreflightError(
            f"stage {name} will write about {needed / 1e6:.0f} MB and {free / 1e6:.0f} MB are free",
            where=str(work),
            fix="free space (`ups cache gc`) or choose another --root",
        )


def _launch(
    work: Path, name: StageName, configuration: Configuration, listener: Listener, log_file: Path
) -> None:
    stage, execution = GRAPH[name], configuration.execution
    follower = _Follower(work / METRICS, listener.on_record)

    def on_line(line: str) -> None:
        listener.on_line(line)
        follower.poll()

    try:
        returncode = launch(
            "ups.stages",
            [name, "--work", str(work)],
            work=work,
            processes=execution.processes if stage.parallel else None,
            log_file=log_file,
            on_line=on_line,
            environment={"OMP_NUM_THREADS": str(execution.threads)},
        )
    except OSError as error:
        raise storage_error(error, work) from error
    follower.poll()
    classify(returncode, work)


def _read_outcome(work: Path) -> dict[str, Any]:
    return read_json(work / OUTCOME_FILE)


class _Follower:
    """Hands on the records that a growing metrics.jsonl has gained since the last look."""

    def __init__(self, path: Path, on_record: Callable[[dict[str, Any]], None]) -> None:
        self.path = path
        self.on_record = on_record
        self.step = 0
        self.offset = 0
        self.inode = 0

    def poll(self) -> None:
        try:
            status = os.stat(self.path)
        except FileNotFoundError:
            return
        if status.st_ino != self.inode:  # a resumed training rewrites its records once, at its start
            self.inode, self.offset = status.st_ino, 0
        with self.path.open("rb") as file:
            file.seek(self.offset)
            data = file.read()
        end = data.rfind(b"\n") + 1
        self.offset += end
        for line in data[:end].splitlines():
            record = json.loads(line)
            if record["step"] >= self.step:
                self.step = record["step"]
                self.on_record(record)
