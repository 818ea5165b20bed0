"""Pins: artifacts that no cleaning up removes, whatever its options.

A pin is a small file `artifacts/.pins/<stage>-<digest>.json` with a note and a time. It belongs to the digest,
not to the bytes: an artifact that is quarantined and rebuilt is pinned as before. Pinned is what is named,
and nothing else: not its inputs, whose digests `ups cache show` lists.

Rejected: a file inside the artifact's directory (a sealed directory does not change, and the pin would go to
the quarantine with it); one file with all pins (two commands at the same time would lose one of them).
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ups.artifacts.files import is_remains, read_json, storage_error, sync_directory, write_json
from ups.artifacts.store import Store
from ups.errors import ConfigurationError, IntegrityError


@dataclass(frozen=True)
class Pin:
    """Who keeps what, and why; `created` is an ISO time in UTC."""

    stage: str
    digest: str
    note: str
    created: str


def pin(store: Store, stage: str, digest: str, *, note: str = "") -> Pin:
    """Pin a sealed artifact; pinning it again replaces the note.

    Waits while `ups cache gc` looks at the artifact, so that what is pinned is there afterwards.

    Raises:
        ConfigurationError: there is no such artifact.
        StorageError: the store cannot be written.
    """
    with store.lease(stage, digest):
        if not store.path(stage, digest).is_dir():
            raise ConfigurationError(
                "no such artifact", where=f"{stage}/{digest[:12]}", fix="`ups cache ls` lists what is there"
            )
        made = Pin(stage, digest, note, datetime.now(UTC).isoformat(timespec="seconds"))
        write_json(_path(store, stage, digest), vars(made))
    return made


def unpin(store: Store, stage: str, digest: str) -> bool:
    """Remove a pin; whether there was one. The artifact, if it is there, stays until it is cleaned up.

    Raises:
        StorageError: the store cannot be written.
    """
    path = _path(store, stage, digest)
    try:
        path.unlink()
        sync_directory(path.parent)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise storage_error(error, path) from error
    return True


def is_pinned(store: Store, stage: str, digest: str) -> bool:
    """Whether there is a pin, readable or not: its name is enough to keep the artifact."""
    return _path(store, stage, digest).exists()


def pins(store: Store) -> dict[tuple[str, str], Pin]:
    """All pins by (stage, digest), also those whose artifact is not there.

    Raises:
        IntegrityError: a pin is damaged.
    """
    found = {}
    for path in sorted((store.artifacts / ".pins").glob("*.json")):
        if is_remains(path):
            continue
        try:
            read = Pin(**read_json(path))
        except TypeError as error:
            raise IntegrityError(f"is no pin: {error}", where=str(path), fix=_FIX) from error
        except FileNotFoundError:  # unpinned meanwhile
            continue
        if path != _path(store, read.stage, read.digest):
            raise IntegrityError(f"names {read.stage} {read.digest[:12]}", where=str(path), fix=_FIX)
        found[read.stage, read.digest] = read
    return found


_FIX = "delete this file and pin the artifact again"


def _path(store: Store, stage: str, digest: str) -> Path:
    return store.artifacts / ".pins" / f"{stage}-{digest}.json"
