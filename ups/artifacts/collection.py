"""Looking after a store: list, verify, and remove what nothing needs."""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ups.artifacts.files import read_json
from ups.artifacts.manifest import MANIFEST, Artifact, Manifest
from ups.artifacts.store import BusyError, Store
from ups.errors import IntegrityError


@dataclass(frozen=True)
class Entry:
    """A directory of the store; `problem` says why it is no good, if it is not."""

    path: Path
    stage: str
    digest: str
    bytes: int
    created: str
    runs: list[str]
    problem: str | None


def entries(store: Store) -> Iterator[Entry]:
    """All sealed artifacts, with the runs that point to them."""
    users = _users(store)
    for path in store:
        runs = users.get(path.resolve(), [])
        try:
            manifest = Manifest.read(path / MANIFEST)
            yield Entry(path, path.parent.name, path.name, manifest.total_bytes, manifest.created, runs, None)
        except (IntegrityError, FileNotFoundError) as error:
            yield Entry(path, path.parent.name, path.name, 0, "", runs, str(error))


def verify(store: Store, *, deep: bool) -> Iterator[tuple[Entry, str | None]]:
    """Check every artifact (sha256 if `deep`, crc32c if not) and say what is wrong with it."""
    for entry in entries(store):
        problem = entry.problem
        if problem is None:
            try:
                store.verify(Artifact(entry.path, Manifest.read(entry.path / MANIFEST)), deep=deep)
            except IntegrityError as error:
                problem = str(error)
        yield entry, problem


@dataclass(frozen=True)
class Removal:
    """What `collect` did with a directory; `kept` says why it is still there, if it is."""

    path: Path
    bytes: int
    kept: str | None = None


def collect(store: Store, *, dry_run: bool) -> Iterator[Removal]:
    """Remove artifacts that no run points to, unfinished work, and the quarantine.

    What a running process uses, or has planned to use, is kept.

    Raises:
        IntegrityError: the pointers of a run are damaged, so that nobody knows what it needs.
    """
    for path in store:
        yield _collect_one(store, path, dry_run=dry_run)
    work = store.artifacts / ".work"
    for path in sorted(work.glob("[!.]*/[!.]*")):
        yield _collect_one(store, path, dry_run=dry_run)
    cut_short = [path for parent in (store.artifacts, work) for path in parent.glob("*/.removed-*")]
    for path in sorted([*cut_short, *(store.artifacts / ".quarantine").glob("*")]):
        yield Removal(path, _size(path))
        if not dry_run:
            store.remove(path)


def _collect_one(store: Store, path: Path, *, dry_run: bool) -> Removal:
    size = _size(path)
    try:
        with store.alone(path.parent.name, path.name):
            # Looked up under the lock: a run that has just ended gave up its lease after its pointers were written.
            if runs := _users(store).get(path.resolve()):
                return Removal(path, size, kept=f"run {runs[-1]} points to it")
            if not path.is_dir():
                return Removal(path, 0, kept="another process removed it")
            if not dry_run:
                store.remove(path)
            return Removal(path, size)
    except BusyError:
        return Removal(path, size, kept="a running process uses it")


def _users(store: Store) -> dict[Path, list[str]]:
    users: dict[Path, list[str]] = {}
    for pointers in sorted((store.root / "runs").glob("*/artifacts.json")):
        for pointer in read_json(pointers).values():
            users.setdefault((pointers.parent / pointer["path"]).resolve(), []).append(pointers.parent.name)
    return users


def _size(path: Path) -> int:
    """Bytes below a path; what a running process removes meanwhile (file or directory) no longer counts."""
    total = 0
    for directory, _, names in os.walk(path):  # unlike Path.rglob, it passes over a directory that vanishes
        for name in names:
            with suppress(FileNotFoundError):
                total += (Path(directory) / name).stat().st_size
    return total
