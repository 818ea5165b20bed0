"""Run one stage to a sealed artifact, or find it sealed."""

import errno
import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ups.artifacts import Artifact, Store
from ups.artifacts.files import OUTCOME_FILE, REQUEST_FILE, read_json, storage_error, write_json
from ups.artifacts.identity import digest_of
from ups.artifacts.remote import where_from
from ups.artifacts.store import BusyError
from ups.config import Configuration
from ups.config.schema import DATA, STAGES
from ups.errors import (
    DataError,
    DiskFullError,
    IntegrityError,
    PreflightError,
    ProcessKilled,
    StageError,
    StorageError,
)
from ups.pipeline.compile_cache import compile_cache
from ups.pipeline.environment import threading_environment
from ups.pipeline.plan import (
    check,
    content_read,
    derive,
    derive_parts,
    kept_shapes,
    missing_trajectories,
    part_keys,
)
from ups.pipeline.rebuild import ASKED_FOR, NOTHING, Rebuild
from ups.pipeline.supervise.launch import LOCK_FILE, launch
from ups.pipeline.supervise.launcher import INTERRUPTED_FILE
from ups.pipeline.supervise.outcome import classify
from ups.pipeline.supervise.rendezvous import Rendezvous

METRICS = Path("output") / "logs" / "metrics.jsonl"

# From being told to end to being killed. A training writes a checkpoint; the others have nothing to write.
_GRACE_SECONDS = 30.0
_SHORT_GRACE_SECONDS = 2.0
_WAIT_SECONDS = 60.0  # for the processes of a killed parent: longer than their grace
_POLL_SECONDS = 0.1
_SECONDS = "seconds.json"
_FULL_BYTES = 1 << 20  # a disk with less is full
MARGIN = 1.1
"""Of the bytes that a stage is predicted to write."""


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
    name: str,
    derivation: dict[str, Any],
    configuration: Configuration,
    inputs: dict[str, Artifact],
    store: Store,
    listener: Listener,
    log_file: Path,
    rebuild: Rebuild = NOTHING,
) -> Built:
    """Return the artifact of a stage, built under its lock if it is not there.

    A damaged artifact is quarantined and rebuilt. An interrupted build goes on from its checkpoints.
    One that is to be built again stays where it is until the new one is sealed.

    Raises:
        UpsError: of the kind that `ups.pipeline.supervise.outcome` finds in the files of the stage.
        PreflightError: the disk has no room for what the stage will write.
        DataError: the input file changed while it was read.
        IntegrityError: an input is damaged, or was built again by another process and came out different.
        StorageError: the disk is full or fails.
    """
    digest = digest_of(derivation)
    work, remote = store.work(name, digest), store.remote
    for artifact in inputs.values():
        store.verify(artifact)
    try:
        with _exclusive(store, name, digest, work, listener):
            artifact, reason = sealed_or_brought(store, name, digest, rebuild)
            if artifact is not None:
                return Built(artifact, hit=True, reason=reason)
            if reason == ASKED_FOR:
                listener.on_line(f"{name}: {reason}; what is sealed stays until the new one is")
            elif store.path(name, digest).exists():
                listener.on_line(f"{name}: {reason}; moved to quarantine, building anew")
                store.quarantine(name, digest, reason=reason)
            if (work / OUTCOME_FILE).exists() and not (work / "output").is_dir():
                shutil.rmtree(work)  # what a finished sealing left behind
            with _claimed(store, name, digest, listener) as waited:
                if waited:
                    artifact, again = sealed_or_brought(store, name, digest, rebuild)
                    if artifact is not None:
                        return Built(artifact, hit=True, reason=again)
                sealed = _build(name, derivation, configuration, inputs, store, listener, log_file)
                if remote is not None:
                    remote.push(store, sealed)
    except BrokenPipeError:
        raise  # of whoever reads our output; no disk is at fault
    except OSError as error:
        raise storage_error(error, work) from error
    return Built(sealed, hit=False, reason=reason)


def _build(
    name: str,
    derivation: dict[str, Any],
    configuration: Configuration,
    inputs: dict[str, Artifact],
    store: Store,
    listener: Listener,
    log_file: Path,
) -> Artifact:
    """Launch a stage, unless an earlier launch got to its end, and seal what it made; its lock is held by the caller."""
    digest = digest_of(derivation)
    work = store.work(name, digest)
    _require_contents(inputs, derivation, configuration, store)
    if _read_outcome(work) is None:  # else: killed between the stage's end and sealing
        needed = remaining_bytes(store, name, digest, configuration, inputs.get("download"))
        require_space(work, needed, f"stage {name}")
        with _spending(work):
            _request(work, name, derivation, configuration, inputs, store)
            _launch(work, name, configuration, store, listener, log_file)
    outcome = _read_outcome(work)
    if outcome is None:
        raise StageError("is damaged: it says that the stage ended", where=str(work / OUTCOME_FILE))
    if derive(name, configuration, inputs, store)["settings"] != derivation["settings"]:
        shutil.rmtree(work)
        raise DataError(
            "the input file changed while it was read",
            where=name,
            fix="run the same command again",
        )
    try:
        _require_contents(inputs, derivation, configuration, store)
    except IntegrityError:
        shutil.rmtree(work)
        raise
    return store.seal(
        name,
        digest,
        derivation=derivation,
        inputs={**inputs},
        summary=outcome["summary"],
        parts=outcome.get("parts", {}),
        seconds=_spent(work),
    )


def sealed_or_brought(
    store: Store, name: str, digest: str, rebuild: Rebuild = NOTHING
) -> tuple[Artifact | None, str]:
    """What is sealed here and may be used, or else what another machine has sealed, and the reason; its lock is held by the caller.

    Where machines share an object store, what is sealed here is there too when this returns.

    Raises:
        StorageError: the object store does not answer.
    """
    artifact, reason = check(store, name, digest, read=True, rebuild=rebuild)
    if store.remote is None:
        return artifact, reason
    if artifact is not None:
        store.remote.push(store, artifact)
    elif not store.path(name, digest).exists() and store.remote.fetch(store, name, digest) is not None:
        artifact, reason = check(store, name, digest, read=True, rebuild=rebuild)
        reason = reason if artifact is None else where_from(artifact)
    return artifact, reason


@contextmanager
def _claimed(store: Store, name: str, digest: str, listener: Listener) -> Iterator[bool]:
    """Be the only machine that builds an artifact, where machines share an object store; says whether another one had it before."""
    if store.remote is None:
        yield False
        return
    waited = []

    def tell() -> None:
        waited.append(True)
        listener.on_line(f"{name}: another machine is building it; waiting")

    with store.remote.claim(name, digest, on_wait=tell):
        yield bool(waited)


def _require_contents(
    inputs: dict[str, Artifact], derivation: dict[str, Any], configuration: Configuration, store: Store
) -> None:
    """Inputs are still those that the key was taken of."""
    for stage, content in derivation["inputs"].items():
        present = store.find(stage, inputs[stage].digest)
        if present is None or content_read(derivation["stage"], configuration, present) != content:
            raise IntegrityError(
                "was built again by another process and came out different, or is gone",
                where=str(inputs[stage].path),
                fix="run the same command again",
            )


def require_space(where: Path, needed: int, who: str) -> None:
    """Refuse work that the disk has no room for, before its first byte.

    Raises:
        PreflightError: says how much is needed and how much is free.
        StorageError: it is no disk.
    """
    existing = next(path for path in (where, *where.parents) if path.exists())
    usage = shutil.disk_usage(existing)
    if usage.total == 0:  # /proc, and what else is no disk
        raise storage_error(PermissionError(errno.EACCES, os.strerror(errno.EACCES)), existing)
    free = usage.free
    if MARGIN * needed > free:
        raise PreflightError(
            f"{who} will write about {needed / 1e6:.1f} MB, and {free / 1e6:.1f} MB are free",
            where=str(where),
            fix="free space (`ups cache gc --dry-run` shows what may go) or choose another --root",
        )


def remaining_bytes(
    store: Store, name: str, digest: str, configuration: Configuration, download: Artifact | None
) -> int:
    """What a stage will still write, by prediction less what an earlier launch wrote."""
    begun, missing = [store.work(name, digest)], {}
    if name == "download":
        parts = derive_parts(configuration, store)
        begun += [store.work(DATA, part) for part in part_keys(parts)]
        missing = missing_trajectories(configuration, store, parts)
    needed = STAGES[name].bytes(configuration, kept_shapes(configuration, download), missing)
    files = (path for work in begun for path in work.rglob("*") if path.is_file())
    return max(0, needed - sum(path.stat().st_size for path in files))


def last_step(store: Store, name: str, digest: str) -> int | None:
    """Of the newest checkpoint of a stage that has not ended; of one without steps, how many parts it has; None: nothing."""
    work = store.work(name, digest)
    steps = [int(path.name.split("-")[1]) for path in (work / "checkpoints").glob("step-*.safetensors")]
    with suppress(FileNotFoundError, IntegrityError):
        steps.append(int(read_json(work / INTERRUPTED_FILE)["step"]))
    return max(steps, default=None)


@contextmanager
def _exclusive(store: Store, name: str, digest: str, work: Path, listener: Listener) -> Iterator[None]:
    """Hold the lock of an artifact, with no process of an earlier launch left in its work directory.

    The lock of a killed parent is free at once, while its stage is still writing a last checkpoint. So
    nothing in the directory is read, judged or removed before that stage's own lock is free too.

    Raises:
        BusyError: processes of an earlier launch do not end.
    """
    try:
        with store.lock(name, digest, timeout=0):
            busy = False
    except BusyError:
        busy = True
        listener.on_line(f"{name}: another process is building it; waiting")
    with store.lock(name, digest):
        if busy:
            listener.on_line(f"{name}: the other process has ended")
        _await_earlier_launch(
            work / LOCK_FILE, lambda: listener.on_line(f"{name}: an earlier launch is ending")
        )
        yield


def _await_earlier_launch(lock_file: Path, on_wait: Callable[[], None]) -> None:
    if not lock_file.exists():
        return
    gives_up_at = time.monotonic() + _WAIT_SECONDS
    reported = False
    with lock_file.open("rb") as lock:
        while True:
            with suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            if time.monotonic() > gives_up_at:
                raise BusyError(
                    f"processes of an earlier launch still run after {_WAIT_SECONDS:g} s",
                    where=str(lock_file.parent),
                    fix=f"end the processes that have {lock_file.name} open, then repeat the command",
                )
            if not reported:
                on_wait()
                reported = True
            time.sleep(_POLL_SECONDS)


def _request(
    work: Path,
    name: str,
    derivation: dict[str, Any],
    configuration: Configuration,
    inputs: dict[str, Artifact],
    store: Store,
) -> None:
    write_json(
        work / REQUEST_FILE,
        {
            "stage": name,
            "root": str(store.root),
            "digest": digest_of(derivation),
            "modules": STAGES[name].modules(configuration),
            "configuration": configuration.model_dump(mode="json"),
            "inputs": {stage: str(artifact.path) for stage, artifact in inputs.items()},
            "derivation": derivation,
            "parts": derive_parts(configuration, store) if name == "download" else {},
        },
    )


def _launch(
    work: Path, name: str, configuration: Configuration, store: Store, listener: Listener, log_file: Path
) -> None:
    nodes, rendezvous = configuration.execution.nodes, None
    if STAGES[name].parallel and nodes > 1:
        rendezvous = Rendezvous.here(nodes)
        listener.on_line(
            f"{name}: waits at {rendezvous.endpoint} for {nodes} machines; on the others run `ups join`"
        )
    follower = _Follower(work / METRICS, listener.on_record)

    def on_line(line: str) -> None:
        listener.on_line(line)
        follower.poll()

    returncode = launch_stage(work, name, configuration, store, on_line, log_file, rendezvous)
    follower.poll()
    try:
        classify(returncode, work, stage=name)
    except (StageError, ProcessKilled) as error:
        # On a full disk a process cannot even write down why it failed.
        free = shutil.disk_usage(work).free
        if free >= _FULL_BYTES:
            raise
        raise DiskFullError(
            f"stage {name} failed, and {free / 1e6:.1f} MB are free",
            where=str(work),
            fix="free space (`ups cache gc --dry-run` shows what may go) or choose another --root; then run the same command again",
        ) from error


def launch_stage(
    work: Path,
    name: str,
    configuration: Configuration,
    store: Store,
    on_line: Callable[[str], None],
    log_file: Path,
    rendezvous: Rendezvous | None,
) -> int:
    """Launch the stage whose request is in a work directory, with the ranks, threads and compile cache of its configuration.

    Returns: the exit code of `launch`.
    """
    stage, execution = STAGES[name], configuration.execution
    return launch(
        "ups.stages",
        [name, "--work", str(work)],
        work=work,
        processes=execution.processes if stage.parallel else None,
        log_file=log_file,
        on_line=on_line,
        environment=threading_environment(execution.threads)
        | (compile_cache(store.artifacts) if execution.compile is not False else {}),
        rendezvous=rendezvous,
        grace_seconds=_GRACE_SECONDS if stage.parallel else _SHORT_GRACE_SECONDS,
    )


@contextmanager
def _spending(work: Path) -> Iterator[None]:
    """Count the seconds of a launch. Of one whose parent is killed its start is there, for `_spent`."""
    spent, started, begun = _spent(work), time.time(), time.monotonic()
    _note(work, {"seconds": spent, "started": started})
    try:
        yield
    finally:
        _note(work, {"seconds": spent + time.monotonic() - begun})


def _note(work: Path, seconds: dict[str, float]) -> None:
    with suppress(StorageError):  # on a full disk: why the launch fails is the news
        write_json(work / _SECONDS, seconds)


def _spent(work: Path) -> float:
    """Seconds that the launches in a work directory took together; one whose parent was killed, until its last file."""
    try:
        noted = read_json(work / _SECONDS)
        spent = float(noted["seconds"])
        if "started" in noted:
            last = max(path.stat().st_mtime for path in work.rglob("*") if path.is_file())
            spent += max(0.0, last - float(noted["started"]))
    except (FileNotFoundError, IntegrityError, KeyError, TypeError, ValueError):
        return 0.0
    return spent


def _read_outcome(work: Path) -> dict[str, Any] | None:
    """The stage's word that all files are written, or None; a damaged one counts for nothing."""
    try:
        outcome = read_json(work / OUTCOME_FILE)
        return outcome if isinstance(outcome["summary"], dict) else None
    except (FileNotFoundError, IntegrityError, KeyError, TypeError):
        return None


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
            status = self.path.stat()
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
