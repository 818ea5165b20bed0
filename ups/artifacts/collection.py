"""Maintenance of a store: list, choose, verify, and garbage collection.

When an artifact was last used is computed, never stored. It is the newest of: its sealing; the start of the
newest run that points to it; the last use of an artifact made of it, which reads it when it is built and
needs it to be there for a HIT. So what feeds an artifact never counts as older than the artifact, and removing
the least recently used first removes results before what they were made of.

Rejected: access times of files (most disks are mounted without them), and a file touched at every HIT (a HIT
would write, and a store on a read-only disk could not be used).
"""

import os
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from ups.artifacts.files import read_json
from ups.artifacts.manifest import Artifact, Manifest
from ups.artifacts.pins import Pin, is_pinned, pins
from ups.artifacts.store import BusyError, Store
from ups.config.schema import DATA
from ups.errors import ConfigurationError, IntegrityError

_SHORTEST_PREFIX = 4
_CANDIDATES_SHOWN = 8
_STAMP = "%Y%m%dT%H%M%SZ"  # a run's directory starts with the time of its start
_LONG_AGO = datetime.min.replace(tzinfo=UTC)
IN_USE = "a running process uses it"


@dataclass(frozen=True)
class Entry:
    """An artifact's directory.

    Attributes:
        bytes: on the disk, the manifest included.
        created, used: when it was sealed and last used (see the module); None if no manifest or run tells.
        runs: names of the runs that point to it, oldest first.
        problem: why it is no good, if it is not; then `manifest` may be None.
    """

    path: Path
    stage: str
    digest: str
    bytes: int
    created: datetime | None
    used: datetime | None
    runs: list[str]
    pin: Pin | None
    problem: str | None
    manifest: Manifest | None

    @property
    def name(self) -> str:
        return f"{self.stage}/{self.digest}"

    def to_json(self) -> dict[str, Any]:
        """All but the manifest; times in ISO format, UTC."""
        return {
            "kind": "artifact",
            "stage": self.stage,
            "digest": self.digest,
            "path": str(self.path),
            "bytes": self.bytes,
            "created": self.created.isoformat() if self.created else None,
            "used": self.used.isoformat() if self.used else None,
            "runs": self.runs,
            "pinned": self.pin is not None,
            "note": self.pin.note if self.pin else None,
            "problem": self.problem,
        }


@dataclass(frozen=True)
class Leftover:
    """What takes room and is no artifact.

    Attributes:
        kind: unfinished work; an artifact set aside as damaged; what a killed collection did not delete.
        written: when something in it was last written.
        problem: of a quarantined artifact, why it was set aside.
    """

    kind: Literal["work", "quarantine", "remains"]
    path: Path
    stage: str
    digest: str
    bytes: int
    written: datetime
    problem: str | None

    def to_json(self) -> dict[str, Any]:
        return vars(self) | {"path": str(self.path), "written": self.written.isoformat(timespec="seconds")}


def entries(store: Store) -> list[Entry]:
    """All sealed artifacts, by stage and digest.

    Raises:
        IntegrityError: the pointers of a run, or a pin, are damaged.
    """
    return _entries(store, _Pointers(store))


def _entries(store: Store, pointers: "_Pointers") -> list[Entry]:
    pointed, pinned = pointers.users(), pins(store)
    found = [_entry(store, path, pointed.get(path.resolve(), {}), pinned) for path in store]
    return _with_pins_of_wholes(_with_last_use([entry for entry in found if entry is not None]))


def _with_pins_of_wholes(found: list[Entry]) -> list[Entry]:
    """The entries; a pin of an artifact holds for its parts too."""
    pinned = {
        (reference["stage"], reference["digest"]): entry.pin
        for entry in found
        if entry.pin is not None and entry.manifest is not None
        for reference in entry.manifest.parts.values()
    }
    return [replace(entry, pin=entry.pin or pinned.get((entry.stage, entry.digest))) for entry in found]


def leftovers(store: Store) -> Iterator[Leftover]:
    """Unfinished work, the quarantine, and what a killed collection left behind."""
    work = store.artifacts / ".work"
    for path in sorted(work.glob("[!.]*/[!.]*")):
        yield _leftover("work", path, path.parent.name, path.name)
    for path in sorted((store.artifacts / ".quarantine").glob("[!.]*")):
        stage, digest, *_ = [*path.name.split("-"), ""]
        yield _leftover("quarantine", path, stage, digest)
    hidden = (store.artifacts.glob("*/.removed-*"), work.glob("*/.removed-*"))
    for path in sorted(path for paths in hidden for path in paths):
        stage = path.parent.name
        yield _leftover("remains", path, stage if not stage.startswith(".") else "", "")


def choose(known: Iterable[tuple[str, str]], name: str) -> tuple[str, str]:
    """The one (stage, digest) that a name means.

    Args:
        known: what there is to choose from.
        name: a digest or its first characters, four at least; or STAGE/DIGEST, shortened likewise.

    Raises:
        ConfigurationError: none or several are meant; they are listed.
    """
    stage, _, prefix = name.rpartition("/")
    candidates = sorted(set(known))
    if len(prefix) < _SHORTEST_PREFIX:
        raise ConfigurationError(
            f"{prefix!r} is too short for a digest",
            where=name,
            fix=f"give {_SHORTEST_PREFIX} characters or more",
        )
    meant = [(s, d) for s, d in candidates if d.startswith(prefix) and stage in {"", s}]
    if len(meant) == 1:
        return meant[0]
    if meant:
        raise ConfigurationError(
            f"is ambiguous:{_listed(meant)}", where=name, fix="give more characters, or STAGE/DIGEST"
        )
    others = [(s, d) for s, d in candidates if stage in {"", s}] or candidates
    there = f"; there are:{_listed(others)}" if others else "; the store is empty"
    raise ConfigurationError(
        f"no artifact has this digest{there}", where=name, fix="`ups cache ls` lists what is there"
    )


def verify(
    store: Store,
    *,
    deep: bool,
    only: Collection[tuple[str, str]] | None = None,
    on_start: Callable[[Entry], None] = lambda _: None,
) -> Iterator[tuple[Entry, str | None]]:
    """Check artifacts (sha256 if `deep`, xxh3 if not) and say what is wrong with them.

    Args:
        only: (stage, digest) of those to check; None: all.
        on_start: called before the files of an artifact are read.
    """
    for entry in entries(store):
        if only is not None and (entry.stage, entry.digest) not in only:
            continue
        problem = entry.problem
        if problem is None and entry.manifest is not None:
            on_start(entry)
            try:
                # Its parts are entries of their own.
                store.verify(Artifact(entry.path, entry.manifest), deep=deep, with_parts=False)
            except IntegrityError as error:
                problem = str(error)
        yield entry, problem


@dataclass(frozen=True)
class Policy:
    """What garbage collection may remove besides what nothing needs, and what of that it must keep.

    Attributes:
        older_than: spare what was used (artifacts) or written (the rest) more recently, under a quota too.
        include_work: remove the work of interrupted stages too that a run could go on with.
        include_runs: with `older_than`: remove artifacts of that age that runs point to.
        quota: bytes that artifacts/ may hold; above it, artifacts that runs point to go too, the least recently
            used first, until it holds no more.
    """

    older_than: timedelta | None = None
    include_runs: bool = False
    include_work: bool = False
    quota: int | None = None

    def __post_init__(self) -> None:
        if self.include_runs and self.older_than is None:
            raise ConfigurationError(
                "would remove what every run points to",
                where="--include-runs",
                fix="say from which age on: --older-than 30d",
            )


@dataclass(frozen=True)
class Removal:
    """What `collect` did with a directory.

    Attributes:
        kept: why it is still there, if it is.
        runs: the runs that pointed to it, and have lost it.
    """

    path: Path
    bytes: int
    kept: str | None = None
    runs: tuple[str, ...] = ()
    used: datetime | None = None


def collect(store: Store, *, dry_run: bool, policy: Policy | None = None) -> Iterator[Removal]:
    """Remove artifacts that no run points to, work that none could go on with, the quarantine, and what the policy adds.

    Whatever the policy: what is pinned is kept, and what a running process uses or has planned to use.
    What a killed collection has begun to delete goes at any age.

    Raises:
        IntegrityError: the pointers or the plan of a run are damaged, so that nobody knows what it needs; or a pin is.
    """
    policy = policy or Policy()
    now = datetime.now(UTC)
    pointers = _Pointers(store)
    known = _entries(store, pointers)
    unfinished = {} if policy.include_work else _unfinished(store)
    held = 0  # bytes that stay
    wanted: list[tuple[Entry, str]] = []  # what only a quota may remove, and what keeps it otherwise
    for entry in known:
        reason, by_quota = _why_keep(entry, policy, now)
        if reason is not None and by_quota:
            wanted.append((entry, reason))
            continue
        removal = (
            _kept(entry, reason) if reason is not None else _remove(store, entry, pointers, dry_run=dry_run)
        )
        held += removal.bytes if removal.kept else 0
        yield removal
    for leftover in leftovers(store):
        run = unfinished.get((leftover.stage, leftover.digest)) if leftover.kind == "work" else None
        if run is not None:
            reason = f"run {run} can go on with it (--include-work removes it)"
            removal = Removal(leftover.path, leftover.bytes, kept=reason, used=leftover.written)
        else:
            removal = _collect_leftover(store, leftover, policy, now, dry_run=dry_run)
        held += removal.bytes if removal.kept else 0
        yield removal
    held += sum(entry.bytes for entry, _ in wanted)
    depth = _depths(inputs_of(known))
    wanted.sort(key=lambda pair: (pair[0].used or _LONG_AGO, -depth[pair[0].name], pair[0].name))
    for entry, reason in wanted:
        if policy.quota is None or held <= policy.quota:
            yield _kept(entry, reason)
            continue
        removal = _remove(store, entry, pointers, dry_run=dry_run)
        held += (removal.bytes if removal.kept else 0) - entry.bytes
        yield removal


def _why_keep(entry: Entry, policy: Policy, now: datetime) -> tuple[str | None, bool]:
    """Why an artifact is kept, None if it is not; and whether it may go nevertheless, for the quota."""
    if entry.pin is not None:
        return f"pinned{f' ({entry.pin.note})' if entry.pin.note else ''}", False
    pointed = f"run {entry.runs[-1]} points to it" if entry.runs and not policy.include_runs else None
    if pointed and policy.quota is None:
        return pointed, False
    if young := _too_young(entry.used, "used", policy, now):
        return young, False
    return pointed, True


def _too_young(when: datetime | None, verb: str, policy: Policy, now: datetime) -> str | None:
    if policy.older_than is None or when is None or now - when > policy.older_than:
        return None
    return f"{verb} too recently ({when:%Y-%m-%d %H:%M})"


def _kept(entry: Entry, reason: str) -> Removal:
    return Removal(entry.path, entry.bytes, kept=reason, used=entry.used)


def _remove(store: Store, entry: Entry, pointers: "_Pointers", *, dry_run: bool) -> Removal:
    """Remove an artifact, if under its lock there is still no reason to keep it."""
    try:
        with store.exclusive(entry.stage, entry.digest):
            # Looked up under the lock: a run that has just ended gave up its lease after its pointers were written.
            runs = list(pointers.users().get(entry.path.resolve(), {}))
            if unexpected := [run for run in runs if run not in entry.runs]:
                return _kept(entry, f"run {unexpected[-1]} points to it")
            if is_pinned(store, entry.stage, entry.digest):
                return _kept(entry, "pinned")
            if not entry.path.is_dir():
                return Removal(entry.path, 0, kept="another process removed it")
            if not dry_run:
                store.remove(entry.path)
            return Removal(entry.path, entry.bytes, runs=tuple(runs), used=entry.used)
    except BusyError:
        return _kept(entry, IN_USE)


def _collect_leftover(
    store: Store, leftover: Leftover, policy: Policy, now: datetime, *, dry_run: bool
) -> Removal:
    path, size = leftover.path, leftover.bytes
    young = _too_young(leftover.written, "written", policy, now) if leftover.kind != "remains" else None
    if young is not None:
        return Removal(path, size, kept=young, used=leftover.written)
    if leftover.kind != "work":
        if not dry_run:
            store.remove(path)
        return Removal(path, size, used=leftover.written)
    try:
        with store.exclusive(leftover.stage, leftover.digest):
            if is_pinned(store, leftover.stage, leftover.digest):
                return Removal(path, size, kept="pinned", used=leftover.written)
            if not path.is_dir():
                return Removal(path, 0, kept="another process removed it")
            if not dry_run:
                store.remove(path)
            return Removal(path, size, used=leftover.written)
    except BusyError:
        return Removal(path, size, kept=IN_USE, used=leftover.written)


def _entry(
    store: Store, path: Path, runs: dict[str, datetime], pinned: dict[tuple[str, str], Pin]
) -> Entry | None:
    """One artifact, its last use as far as its own runs tell; None if it was removed meanwhile."""
    stage, digest = path.parent.name, path.name
    manifest, problem = None, None
    try:
        artifact = store.find(stage, digest)
        if artifact is None:
            return None
        manifest = artifact.manifest
    except (IntegrityError, FileNotFoundError) as error:
        if not path.is_dir():
            return None
        problem = str(error)
    created = datetime.fromisoformat(manifest.created) if manifest else None
    times = [*runs.values()] if created is None else [*runs.values(), created]
    used = max(times) if times else None
    size = _measure(path)[0]
    pin = pinned.get((stage, digest))
    return Entry(
        path,
        stage,
        digest,
        size,
        created,
        used,
        sorted(runs, key=lambda run: (runs[run], run)),
        pin,
        problem,
        manifest,
    )


def _with_last_use(found: list[Entry]) -> list[Entry]:
    """The entries, with the last use of every artifact handed on to its inputs."""
    used = {entry.name: entry.used for entry in found}
    inputs = inputs_of(found)
    depth = _depths(inputs)
    for entry in sorted(found, key=lambda entry: -depth[entry.name]):
        when = used[entry.name]
        for name in inputs[entry.name]:
            if when is not None:
                used[name] = max(used[name] or when, when)
    return [replace(entry, used=used[entry.name]) for entry in found]


def _depths(inputs: dict[str, list[str]]) -> dict[str, int]:
    """Per artifact, how many others were built one after the other before it could be."""
    depths: dict[str, int] = {}

    def depth(name: str) -> int:
        if name not in depths:
            depths[name] = 1 + max((depth(other) for other in inputs[name]), default=-1)
        return depths[name]

    for name in inputs:
        depth(name)
    return depths


def inputs_of(found: Iterable[Entry]) -> dict[str, list[str]]:
    """Per artifact, those that it was made of or could have been: inputs go by their content, however it was made."""
    contents: dict[tuple[str, str], list[str]] = defaultdict(list)
    manifests = {entry.name: entry.manifest for entry in found}
    for name, manifest in manifests.items():
        if manifest is not None:
            contents[manifest.stage, manifest.content].append(name)
    return {
        name: [
            other
            for stage, sums in (made_of(manifest) if manifest else ())
            for other in contents.get((stage, sums["content"]), [])
        ]
        for name, manifest in manifests.items()
    }


def made_of(manifest: Manifest) -> Iterator[tuple[str, dict[str, str]]]:
    """Stage and sums of each input and part."""
    yield from manifest.inputs.items()
    yield from ((reference["stage"], reference) for reference in manifest.parts.values())


class _Pointers:
    """What runs point to, as of each call; only pointers that were written since the last one are read again.

    They are replaced by a rename, hence another inode. Looked up before every removal: with 200 runs and 300
    artifacts, reading all of them each time took 26 s, this takes 1.3.
    """

    def __init__(self, store: Store) -> None:
        self.runs = store.root / "runs"
        self.known: dict[str, tuple[tuple[int, int, int], datetime, list[Path]]] = {}

    def users(self) -> dict[Path, dict[str, datetime]]:
        """Per artifact directory the runs that point to it, with the times of their start.

        Raises:
            IntegrityError: the pointers of a run are damaged.
        """
        users: dict[Path, dict[str, datetime]] = {}
        for pointers in sorted(self.runs.glob("*/artifacts.json")):
            run = pointers.parent.name
            try:
                status = pointers.stat()
                identity = (status.st_ino, status.st_size, status.st_mtime_ns)
                if run not in self.known or self.known[run][0] != identity:
                    paths = [
                        pointers.parent / path
                        for value in read_json(pointers).values()
                        for path in (value["path"], *value.get("parts", []))
                    ]
                    started = _start(run) or datetime.fromtimestamp(int(status.st_mtime), UTC)
                    self.known[run] = (identity, started, [path.resolve() for path in paths])
            except FileNotFoundError:  # the run was deleted meanwhile
                continue
            except (AttributeError, KeyError, TypeError) as error:
                raise IntegrityError(f"holds no pointers: {error!r}", where=str(pointers)) from error
            _, started, paths = self.known[run]
            for path in paths:
                users.setdefault(path, {})[run] = started
        return users


def _unfinished(store: Store) -> dict[tuple[str, str], str]:
    """By stage and digest of what is not sealed, the newest run that planned it.

    Raises:
        IntegrityError: the plan of a run is damaged.
    """
    planned: dict[tuple[str, str], str] = {}
    for plan in sorted((store.root / "runs").glob("*/plan.json")):
        try:
            for row in read_json(plan):
                keys = [(row["stage"], row["digest"]), *((DATA, part) for part in row.get("parts", []))]
                planned |= dict.fromkeys(keys, plan.parent.name)
        except FileNotFoundError:  # the run was deleted meanwhile
            continue
        except (AttributeError, KeyError, TypeError) as error:
            raise IntegrityError(f"is no plan: {error!r}", where=str(plan)) from error
    return {key: run for key, run in planned.items() if key[1] and not store.path(*key).is_dir()}


def _start(run: str) -> datetime | None:
    """When a run started, by its directory's name; None if its owner renamed it."""
    try:
        return datetime.strptime(run.partition("-")[0], _STAMP).replace(tzinfo=UTC)
    except ValueError:
        return None


def _leftover(
    kind: Literal["work", "quarantine", "remains"], path: Path, stage: str, digest: str
) -> Leftover:
    size, written = _measure(path)
    reason = None
    with suppress(FileNotFoundError):
        reason = (path / "reason.txt").read_text().strip() if kind == "quarantine" else None
    return Leftover(kind, path, stage, digest, size, written, reason)


def _measure(path: Path) -> tuple[int, datetime]:
    """Bytes below a path and the newest time of writing.

    What a running process removes meanwhile (file or directory) no longer counts.
    """
    total, newest = 0, 0.0
    for directory, _, names in os.walk(path):  # unlike Path.rglob, it passes over a directory that vanishes
        for name in ("", *names):
            with suppress(FileNotFoundError):
                status = (Path(directory) / name).lstat()
                newest = max(newest, status.st_mtime)
                total += status.st_size if name else 0
    return total, datetime.fromtimestamp(newest, UTC)


def _listed(pairs: list[tuple[str, str]]) -> str:
    lines = [f"\n    {stage}/{digest}" for stage, digest in pairs[:_CANDIDATES_SHOWN]]
    rest = len(pairs) - len(lines)
    return "".join(lines) + (f"\n    and {rest} more" if rest else "")
