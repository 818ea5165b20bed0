"""The artifact store: commit protocol, verification, quarantine.

Work goes on in `artifacts/.work/<stage>/<digest>/` under a kernel lock, which a killed holder frees. The
directory is a function of the digest, so every kind of retry finds its checkpoints. Sealing flushes the
files, writes the manifest last, and renames: a reader sees a whole artifact or none.
"""

import fcntl
import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from filelock import FileLock, Timeout

from ups.artifacts.checksums import fast_checksum, file_checksums
from ups.artifacts.files import (
    is_remains,
    read_json,
    refuse,
    storage_error,
    sync_directory,
    sync_tree,
    write_json,
)
from ups.artifacts.manifest import LOGS, MANIFEST, Artifact, File, Manifest
from ups.errors import IntegrityError, StageError, StorageError

if TYPE_CHECKING:
    from ups.artifacts.remote import Remote

log = logging.getLogger(__name__)

_REBUILD = "run its configuration again: what is damaged is set aside and rebuilt"


class BusyError(StorageError):
    """Another process works on an artifact, or uses it."""


class Store:
    """Artifacts below `root/artifacts`."""

    def __init__(self, root: Path, *, remote: "Remote | None" = None) -> None:
        """remote: where artifacts are shared with machines of other roots."""
        self.root, self.remote = root.absolute(), remote
        self.artifacts = self.root / "artifacts"
        self._verified: set[tuple[str, str, str]] = set()

    def path(self, stage: str, digest: str) -> Path:
        return self.artifacts / stage / digest

    def work(self, stage: str, digest: str) -> Path:
        return self.artifacts / ".work" / stage / digest

    @contextmanager
    def lock(self, stage: str, digest: str, *, timeout: float = -1) -> Iterator[None]:
        """Hold the kernel lock of one artifact's work directory.

        Raises:
            BusyError: another process holds it for longer than `timeout` seconds (-1: wait for ever).
            StorageError: the store cannot be written.
        """
        path = self._lock_file(stage, digest, "lock")
        # A soft lock, by the mere presence of a file, would outlive a killed holder.
        lock = FileLock(path, timeout=timeout, fallback_to_soft=False)
        try:
            lock.acquire()
        except Timeout:
            raise BusyError(
                "another process is working on this artifact", where=f"{stage} {digest[:12]}",
                fix="wait for it, or end it; its work is kept",
            ) from None  # fmt: skip
        except OSError as error:
            raise storage_error(error, path) from error
        try:
            yield
        finally:
            lock.release()

    def lease(self, stage: str, digest: str) -> BinaryIO:
        """Hold a shared lock on an artifact, sealed or not: until the file is closed, or the process ends in
        whatever way, `ups cache gc` keeps the artifact and its work.

        Raises:
            StorageError: the store cannot be written.
        """
        return self._flock(stage, digest, fcntl.LOCK_SH)

    @contextmanager
    def exclusive(self, stage: str, digest: str) -> Iterator[None]:
        """Lock an artifact and its work against all others, for removing them.

        Raises:
            BusyError: somebody works on it, has a lease on it, or is still writing in its work directory.
        """
        busy = BusyError("is in use", where=f"{stage} {digest[:12]}")
        with self.lock(stage, digest, timeout=0):
            try:
                with self._flock(stage, digest, fcntl.LOCK_EX | fcntl.LOCK_NB):
                    # The launch of a killed parent holds a lock in there while its last checkpoint is written.
                    for path in self.work(stage, digest).glob("*.lock"):
                        with path.open("rb") as file:
                            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    yield
            except BlockingIOError:
                raise busy from None

    def _flock(self, stage: str, digest: str, operation: int) -> BinaryIO:
        path = self._lock_file(stage, digest, "lease")
        try:
            file = path.open("ab")
        except OSError as error:
            raise storage_error(error, path) from error
        try:
            fcntl.flock(file, operation)
        except BaseException:
            file.close()
            raise
        return file

    def _lock_file(self, stage: str, digest: str, kind: str) -> Path:
        path = self.artifacts / ".locks" / f"{stage}-{digest}.{kind}"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(error, path.parent) from error
        return path

    def find(self, stage: str, digest: str) -> Artifact | None:
        """The sealed artifact of a digest, unverified, or None.

        Raises:
            IntegrityError: it is there and its manifest is damaged.
        """
        path = self.path(stage, digest)
        if not path.is_dir():
            return None
        if not (path / MANIFEST).is_file():
            raise IntegrityError("has no manifest", where=str(path))
        manifest = Manifest.read(path / MANIFEST)
        if (manifest.stage, manifest.digest) != (stage, digest):
            raise IntegrityError(f"holds {manifest.stage} {manifest.digest[:12]}", where=str(path))
        return Artifact(path, manifest)

    def sound(self, stage: str, digest: str, *, set_aside: bool = False) -> Artifact | None:
        """The sealed artifact of a digest, with its bytes read and found right; None if there is none, or a damaged one.

        set_aside: put a damaged one into quarantine, under its lock, so that it can be built anew.
        """
        try:
            artifact = self.find(stage, digest)
            if artifact is not None:
                self.verify(artifact)
            return artifact
        except IntegrityError as error:
            if set_aside:
                log.warning("%s; moved to quarantine, building anew", error)
                self.quarantine(stage, digest, reason=str(error))
            return None

    def is_unchanged(self, artifact: Artifact) -> bool:
        """Whether nobody has written to an artifact since its bytes were last read and found right.

        Sizes, times and inodes decide, not bytes: enough for a plan. Whoever uses an artifact verifies it.
        """
        try:
            known = read_json(self._memory(artifact.stage, artifact.digest)) == _file_statuses(artifact)
            return known and all(self.is_unchanged(part) for part in self.parts(artifact))
        except (OSError, StorageError, IntegrityError):
            return False  # whoever reads the bytes then gets the error

    def parts(self, artifact: Artifact) -> list[Artifact]:
        """The artifacts that it consists of, unverified.

        Raises:
            IntegrityError: one is gone, or has other content now.
        """
        found = []
        for name, reference in artifact.manifest.parts.items():
            part = self.find(reference["stage"], reference["digest"])
            if part is None or part.manifest.content != reference["content"]:
                state = "is gone" if part is None else "has other content now"
                raise IntegrityError(f"its part {name} {state}", where=str(artifact.path), fix=_REBUILD)
            found.append(part)
        return found

    def verify(self, artifact: Artifact, *, deep: bool = False, with_parts: bool = True) -> None:
        """Check every file of an artifact and of its parts: size and xxh3, or sha256 if `deep`.

        The fast check is done once per process and artifact. What was found right is remembered, see `is_unchanged`.

        Raises:
            IntegrityError: a file is missing, surplus or changed; all of them are named.
        """
        key = (artifact.stage, artifact.digest, artifact.manifest.content)
        if key in self._verified and not deep:
            return
        expected = {file.path: file for file in artifact.manifest.files}
        statuses = _file_statuses(artifact)  # before the bytes: who writes while they are read is found out
        try:
            present = _files_below(artifact.path) if artifact.path.is_dir() else []
            surplus = set(present) - {MANIFEST, *expected}
            problems = [f"{name} does not belong" for name in sorted(surplus)]
            for name, file in sorted(expected.items()):
                if problem := _problem(artifact.path / name, file, deep=deep):
                    problems.append(f"{name} {problem}")
        except OSError as error:
            raise storage_error(error, artifact.path) from error
        if problems:
            self._remember(artifact, None)
            raise IntegrityError(
                "; ".join(problems),
                where=str(artifact.path),
                fix=_REBUILD,
            )
        self._remember(artifact, statuses)
        parts = self.parts(artifact)
        if with_parts:
            for part in parts:
                self.verify(part, deep=deep)
            self._verified.add(key)

    def _memory(self, stage: str, digest: str) -> Path:
        return self.artifacts / ".verified" / f"{stage}-{digest}.json"

    def _remember(self, artifact: Artifact, statuses: dict[str, list[int]] | None) -> None:
        """Statuses of files whose bytes were found right; None: nothing is known any more."""
        memory = self._memory(artifact.stage, artifact.digest)
        with suppress(OSError, StorageError):  # a store that cannot be written to is read every time
            if statuses is None:
                memory.unlink(missing_ok=True)
            else:
                write_json(memory, statuses)

    def seal(
        self,
        stage: str,
        digest: str,
        *,
        derivation: dict[str, Any],
        inputs: dict[str, Artifact],
        summary: dict[str, Any],
        seconds: float,
        parts: dict[str, dict[str, str]] | None = None,
    ) -> Artifact:
        """Turn `<work>/output` into the sealed artifact and remove the work directory.

        Called under the lock, when the stage has written all its files. One that is there already, because the stage
        was asked for again, stays if it has the same bytes, and has a new date: whoever uses it is not disturbed. One of
        other bytes is set aside, never deleted; who uses it finds out when it looks at its input again.

        Raises:
            StageError: there are no files.
            StorageError: flushing or renaming failed; the work directory is kept.
        """
        work = self.work(stage, digest)
        output, final = work / "output", self.path(stage, digest)
        try:
            (output / MANIFEST).unlink(missing_ok=True)  # of a sealing that was cut short
            names = []
            for name in _files_below(output) if output.is_dir() else []:
                if is_remains(output / name):
                    (output / name).unlink()
                else:
                    names.append(name)
            if not names:
                raise StageError("the stage wrote no files", where=str(output))
            sync_tree(output)
            files = []
            for name in names:
                sums = file_checksums(output / name)
                files.append(File(name, (output / name).stat().st_size, sums.sha256, sums.xxh3))
            manifest = Manifest(
                stage=stage,
                digest=digest,
                derivation=derivation,
                inputs={
                    name: {"digest": artifact.digest, "content": artifact.manifest.content}
                    for name, artifact in inputs.items()
                },
                files=files,
                summary=summary,
                parts=parts or {},
                created=datetime.now(UTC).isoformat(timespec="seconds"),
                seconds=round(seconds, 3),
            )
            write_json(output / MANIFEST, manifest.to_json())
            # Some libraries write files that only their owner may read.
            mode = (output / MANIFEST).stat().st_mode
            for file in files:
                (output / file.path).chmod(mode)
            final.parent.mkdir(parents=True, exist_ok=True)
            before = self.find(stage, digest)
            if before is None:
                output.rename(final)
            elif before.manifest.content == manifest.content:
                manifest = replace(before.manifest, created=manifest.created, seconds=manifest.seconds)
                write_json(final / MANIFEST, manifest.to_json())
            else:
                self.quarantine(stage, digest, reason="was built again on request, and came out different")
                output.rename(final)
            for directory in (final.parent, self.artifacts, self.root):  # any of them may be new
                sync_directory(directory)
        except OSError as error:
            raise storage_error(error, output) from error
        shutil.rmtree(work, ignore_errors=True)  # the artifact is safe; what stays here, gc removes
        self._verified.add((stage, digest, manifest.content))
        artifact = Artifact(final, manifest)
        self._remember(artifact, _file_statuses(artifact))
        return artifact

    def quarantine(self, stage: str, digest: str, *, reason: str) -> Path:
        """Move an artifact aside, with the reason beside it, so that it is rebuilt and can be examined.

        Raises:
            StorageError: it cannot be moved.
        """
        target = self.artifacts / ".quarantine" / f"{stage}-{digest}-{time.time_ns()}"
        try:
            target.mkdir(parents=True)
            (target / "reason.txt").write_text(reason + "\n")
            self.path(stage, digest).rename(target / "artifact")
            sync_directory(self.path(stage, digest).parent)
        except OSError as error:
            raise storage_error(error, target) from error
        self._verified = {key for key in self._verified if key[:2] != (stage, digest)}
        return target

    def remove(self, path: Path) -> None:
        """Delete a directory of the store: first out of sight in one step, then file by file.

        Needs no space: this is what a full disk asks for.

        Raises:
            StorageError: it cannot be deleted.
        """
        hidden = path.with_name(f".removed-{path.name[:16]}-{time.time_ns()}")
        try:
            path.rename(hidden)
            self._memory(path.parent.name, path.name).unlink(missing_ok=True)
            shutil.rmtree(hidden)
        except OSError as error:
            raise storage_error(error, path) from error

    def __iter__(self) -> Iterator[Path]:
        """Directories of all sealed artifacts."""
        if self.artifacts.is_dir():
            for stage in sorted(self.artifacts.iterdir()):
                if stage.is_dir() and not stage.name.startswith("."):
                    yield from sorted(
                        path for path in stage.iterdir() if path.is_dir() and not path.name.startswith(".")
                    )


def _file_statuses(artifact: Artifact) -> dict[str, list[int]] | None:
    """What changes when somebody writes to a file, adds one, or puts another in its place; None if one is gone."""
    try:
        statuses = {name: (artifact.path / name).lstat() for name in _files_below(artifact.path)}
    except OSError:
        return None
    return {
        name: [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
        for name, status in statuses.items()
    }


def _problem(path: Path, file: File, *, deep: bool) -> str | None:
    try:
        size = path.stat().st_size
        if size != file.bytes:
            return f"has {size} bytes, sealed with {file.bytes}"
        same = file_checksums(path).sha256 == file.sha256 if deep else fast_checksum(path) == file.xxh3
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return "is missing"
    return None if same else "has other content than was sealed"


def _files_below(directory: Path) -> list[str]:
    """Everything below a directory that is not a directory itself, by relative path."""
    names = []
    for parent, directories, files in os.walk(directory, onerror=refuse):
        links = [name for name in directories if (Path(parent) / name).is_symlink()]
        names += [str((Path(parent) / name).relative_to(directory)) for name in (*files, *links)]
    return sorted(names)


__all__ = ["LOGS", "BusyError", "Store"]
