"""Sealed artifacts in an object store, for machines that share no file system.

    UPS_REMOTE=s3://bucket/prefix        any file system of fsspec that can create a file only where there is none

What is sealed here is copied there, manifest last, so that an artifact is there whole or not at all; what is wanted here is looked for there
before it is built, and verified like any other. Checkpoints stay on their machine: an object store is no place for a training at
work, and another machine begins a broken stage anew. Machines that should go on with each other's trainings need one file system.

Two machines that want the same stage: the first claims it, the other waits. A claim is an object that only one can create, and that its holder
writes again every few seconds. One that has not changed for a minute of the waiting machine's own clock is of a machine that is gone, and is
taken over; no two clocks are compared. Should two take over at the same instant, both build the same bytes.
"""

import json
import logging
import os
import secrets
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ups.artifacts.files import canonical_json, sync_tree
from ups.artifacts.manifest import MANIFEST, Artifact, Manifest
from ups.artifacts.store import Store
from ups.errors import ConfigurationError, IntegrityError, StorageError, UpsError

log = logging.getLogger(__name__)

VARIABLE = "UPS_REMOTE"
_RENEWED_SECONDS = 10.0
_STALE_SECONDS = 60.0
_POLL_SECONDS = 2.0


def where_from(artifact: Artifact) -> str:
    """The reason why a stage is a HIT that another machine has sealed."""
    return f"sealed {artifact.manifest.created}, brought from {VARIABLE}"


class Remote:
    """Artifacts below a URL."""

    def __init__(self, url: str) -> None:
        """
        Raises:
            ConfigurationError: there is no such kind of file system here.
        """
        import fsspec

        self.url = url.rstrip("/")
        try:
            # A store has no directories; a file system makes them.
            options = {"auto_mkdir": True} if self.url.startswith("file://") else {}
            self._files, self._prefix = fsspec.core.url_to_fs(self.url, **options)
        except (ImportError, ValueError) as error:
            raise ConfigurationError(
                f"{url}: {error}", where=VARIABLE, fix="s3://BUCKET/PREFIX needs `pip install s3fs`"
            ) from error

    @classmethod
    def from_environment(cls) -> "Remote | None":
        """That of UPS_REMOTE, if it is set."""
        url = os.environ.get(VARIABLE)
        return cls(url) if url else None

    def _manifest(self, stage: str, digest: str) -> Manifest | None:
        """Of an artifact that is there, whole."""
        with self._reached(), TemporaryDirectory() as directory:
            self._files.invalidate_cache()
            path = Path(directory) / MANIFEST
            try:
                self._files.get_file(self._path(stage, digest, MANIFEST), str(path))
            except FileNotFoundError:
                return None
            return Manifest.read(path)

    def fetch(self, store: Store, stage: str, digest: str) -> Artifact | None:
        """Bring an artifact and its parts here, verified; None if it is not there, or is damaged. Its lock is held by the caller.

        Raises:
            StorageError: the store does not answer, or the disk is full.
        """
        final = store.path(stage, digest)
        if final.exists():
            return store.find(stage, digest)
        # Where the lock that is held keeps `ups cache gc` away.
        coming = store.work(stage, digest) / "fetched"
        shutil.rmtree(coming, ignore_errors=True)
        try:
            manifest = self._manifest(stage, digest)
            if manifest is None:
                return None
            coming.mkdir(parents=True)
            with self._reached():
                for name in [*(file.path for file in manifest.files), MANIFEST]:
                    (coming / name).parent.mkdir(parents=True, exist_ok=True)
                    self._files.get_file(self._path(stage, digest, name), str(coming / name))
            for part in manifest.parts.values():
                with store.lock(part["stage"], part["digest"]):
                    if self.fetch(store, part["stage"], part["digest"]) is None:
                        raise IntegrityError(f"its part {part['stage']} is not there")
            store.verify(Artifact(coming, manifest), with_parts=False)
            sync_tree(coming)
            final.parent.mkdir(parents=True, exist_ok=True)
            coming.rename(final)
        except IntegrityError as error:
            log.warning("%s: %s; it is taken out there", self._url(stage, digest), error)
            with self._reached(), suppress(FileNotFoundError):
                self._files.rm_file(self._path(stage, digest, MANIFEST))
            return None
        finally:
            shutil.rmtree(coming, ignore_errors=True)
            with suppress(OSError):  # it holds an interrupted build
                coming.parent.rmdir()
        return Artifact(final, manifest)

    def push(self, store: Store, artifact: Artifact) -> None:
        """Copy a sealed artifact and its parts there, unless they are; one that was built again and came out different replaces
        what is there.

        Raises:
            StorageError: the store does not answer or is full; the artifact is safe here.
        """
        there = self._manifest(artifact.stage, artifact.digest)
        if there is not None and there.content == artifact.manifest.content:
            return
        for part in store.parts(artifact):
            self.push(store, part)
        with self._reached():
            for name in [*(file.path for file in artifact.manifest.files), MANIFEST]:
                self._files.put_file(
                    str(artifact.path / name), self._path(artifact.stage, artifact.digest, name)
                )

    @contextmanager
    def claim(self, stage: str, digest: str, *, on_wait: Callable[[], None]) -> Iterator[None]:
        """Be the only machine that builds an artifact.

        on_wait: called once, where another machine has it.

        Raises:
            StorageError: the store does not answer.
        """
        path = self._path(".claims", f"{stage}-{digest}")
        own = _Claim()
        self._acquire(path, own, on_wait)
        over = threading.Event()

        def renew() -> None:
            while not over.wait(_RENEWED_SECONDS):
                # A store that is away for a while costs the claim, if it is away for long, and never the work.
                with suppress(StorageError), self._reached():
                    self._files.pipe_file(path, own.renewed())

        thread = threading.Thread(target=renew, name=f"claim of {stage}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            with suppress(StorageError), self._reached(), suppress(FileNotFoundError):
                if own.is_in(self._files.cat_file(path)):
                    self._files.rm_file(path)

    def _acquire(self, path: str, own: "_Claim", on_wait: Callable[[], None]) -> None:
        seen, since, told = b"", time.monotonic(), False
        while True:
            with self._reached():
                try:
                    self._files.pipe_file(path, own.renewed(), mode="create")
                except FileExistsError:
                    pass
                else:
                    return
                self._files.invalidate_cache()
                try:
                    held = self._files.cat_file(path)
                    if held != seen:
                        seen, since = held, time.monotonic()
                    elif time.monotonic() - since > _STALE_SECONDS:
                        self._files.rm_file(path)
                        continue
                except FileNotFoundError:
                    continue
            if not told:
                on_wait()
                told = True
            time.sleep(_POLL_SECONDS)

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """What the store's library raises, whatever that is, is an error of the store.

        Raises:
            StorageError: with its words.
        """
        try:
            yield
        except UpsError:
            raise
        except Exception as error:
            raise StorageError(
                f"{type(error).__name__}: {error}",
                where=f"{VARIABLE} {self.url}",
                fix="look at address, credentials and network; what is sealed here stays, and the same command goes on",
            ) from error

    def _path(self, *parts: str) -> str:
        return "/".join([self._prefix, *parts])

    def _url(self, *parts: str) -> str:
        return "/".join([self.url, *parts])


class _Claim:
    """Content of a claim: who holds it, and a number that grows."""

    def __init__(self) -> None:
        self._about: dict[str, Any] = {
            "host": socket.gethostname(),
            "process": os.getpid(),
            "token": secrets.token_hex(8),
        }
        self._number = 0

    def renewed(self) -> bytes:
        self._number += 1
        return canonical_json(self._about | {"number": self._number})

    def is_in(self, content: bytes) -> bool:
        try:
            return json.loads(content)["token"] == self._about["token"]
        except (ValueError, KeyError, TypeError):
            return False
