"""What is sealed is read back as it was, or the damage is named: never in silence."""

import errno
import fcntl
import hashlib
import json
import os
import random
import shutil
from pathlib import Path

import pytest
from sealing import FILES, sealed, write_output

from ups.artifacts import Manifest, Store
from ups.artifacts.files import canonical_json, write_json
from ups.artifacts.manifest import MANIFEST, Artifact
from ups.errors import IntegrityError, StageError, StorageError

STAGE, DIGEST = "download", "d" * 64


def read_back(root: Path) -> Artifact | None:
    """As another process would: find and verify without any memory."""
    store = Store(root)
    artifact = store.find(STAGE, DIGEST)
    if artifact is not None:
        store.verify(artifact)
    return artifact


def is_refused(root: Path) -> bool:
    try:
        read_back(root)
    except IntegrityError:
        return True
    return False


def test_what_is_sealed_is_found_and_the_work_is_gone(tmp_path):
    store = Store(tmp_path)
    assert store.find(STAGE, DIGEST) is None
    made = sealed(store, summary={"rows": 3})
    found = read_back(tmp_path)
    assert found is not None
    assert found.manifest == made.manifest
    assert {file.path: (found.path / file.path).read_bytes() for file in found.manifest.files} == FILES
    assert found.manifest.summary == {"rows": 3}
    assert not store.work(STAGE, DIGEST).exists()
    assert list(store) == [found.path]


def test_who_planned_reads_no_bytes_and_finds_what_was_written_to(tmp_path):
    artifact = sealed(Store(tmp_path))
    file = artifact.path / "model.bin"
    content, status = file.read_bytes(), file.stat()
    assert Store(tmp_path).is_unchanged(artifact)
    file.write_bytes(bytes(len(content)))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))  # the time of the change of its status stays
    assert not Store(tmp_path).is_unchanged(artifact)
    file.write_bytes(content)
    assert not Store(tmp_path).is_unchanged(artifact)
    Store(tmp_path).verify(artifact)
    assert Store(tmp_path).is_unchanged(artifact)
    shutil.copytree(artifact.path, tmp_path / "copy")
    shutil.rmtree(artifact.path)
    assert not Store(tmp_path).is_unchanged(artifact)
    (tmp_path / "copy").rename(artifact.path)
    assert not Store(tmp_path).is_unchanged(artifact), "other files, whose bytes nobody has read"
    Store(tmp_path).verify(artifact)
    Store(tmp_path).remove(artifact.path)
    assert not list((tmp_path / "artifacts" / ".verified").iterdir())


def test_every_flipped_bit_is_found(tmp_path):
    artifact = sealed(Store(tmp_path))
    files = [path for path in artifact.path.rglob("*") if path.is_file()]
    assert len(files) == len(FILES) + 1
    chooser = random.Random(0)
    for path in files:
        content = path.read_bytes()
        bits = range(8 * len(content))
        for bit in chooser.sample(bits, min(len(bits), 400)):
            damaged = bytearray(content)
            damaged[bit // 8] ^= 1 << bit % 8
            path.write_bytes(damaged)
            assert is_refused(tmp_path), f"bit {bit} of {path.name} was flipped in silence"
        path.write_bytes(content)
    assert read_back(tmp_path) is not None


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def add_beside(path: Path) -> None:
    path.with_name("surplus").write_bytes(b"")


def hide_in_link(path: Path) -> None:
    path.with_name("link").symlink_to(path.parent, target_is_directory=True)


def replace_by_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "damage", [truncate, empty, lengthen, Path.unlink, add_beside, hide_in_link, replace_by_directory]
)
@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_other_damage_is_found_and_named(tmp_path, damage, name):
    artifact = sealed(Store(tmp_path))
    damage(artifact.path / name)
    with pytest.raises(IntegrityError) as caught:
        read_back(tmp_path)
    assert str(artifact.path) in str(caught.value)


def test_files_that_changed_places_are_found(tmp_path):
    """Each content is one that was sealed, and each size fits."""
    artifact = sealed(Store(tmp_path), files={"a": b"first", "b": b"other"})
    (artifact.path / "a").write_bytes(b"other")
    (artifact.path / "b").write_bytes(b"first")
    with pytest.raises(IntegrityError, match="a has other content than was sealed; b has other content"):
        read_back(tmp_path)


def test_the_deep_check_needs_no_fast_sum(tmp_path, monkeypatch):
    store = Store(tmp_path)
    artifact = sealed(store)
    content = bytearray((artifact.path / "model.bin").read_bytes())
    content[5] ^= 1
    (artifact.path / "model.bin").write_bytes(content)
    fast = {file.path: file.xxh3 for file in artifact.manifest.files}
    monkeypatch.setattr(
        "ups.artifacts.store.fast_checksum", lambda path: fast[str(path.relative_to(artifact.path))]
    )
    Store(tmp_path).verify(artifact)
    with pytest.raises(IntegrityError, match=r"model\.bin has other content"):
        Store(tmp_path).verify(artifact, deep=True)


def test_an_artifact_under_another_digest_is_refused(tmp_path):
    store = Store(tmp_path)
    artifact = sealed(store)
    artifact.path.rename(store.path(STAGE, "e" * 64))
    with pytest.raises(IntegrityError, match=f"holds {STAGE} dddddddddddd"):
        store.find(STAGE, "e" * 64)


def test_a_manifest_of_the_first_schema_is_read(tmp_path):
    """What it called a recipe is a derivation."""
    artifact = sealed(Store(tmp_path))
    values = artifact.manifest.to_json()
    del values["sum"]
    values |= {"schema": 1, "recipe": values.pop("derivation")}
    write_json(artifact.path / MANIFEST, values | {"sum": hashlib.sha256(canonical_json(values)).hexdigest()})
    found = Store(tmp_path).find(STAGE, DIGEST)
    assert found is not None
    assert found.manifest.derivation == artifact.manifest.derivation
    assert found.manifest.content == artifact.manifest.content
    Store(tmp_path).verify(found)


def test_a_manifest_of_another_schema_is_refused(tmp_path):
    artifact = sealed(Store(tmp_path))
    values = json.loads((artifact.path / MANIFEST).read_text())
    (artifact.path / MANIFEST).write_text(json.dumps(values | {"schema": 99}))
    with pytest.raises(IntegrityError, match="schema 99, expected 3"):
        Manifest.read(artifact.path / MANIFEST)


def test_a_check_in_this_process_is_not_repeated_but_a_rebuilt_artifact_is_checked(tmp_path):
    store = Store(tmp_path)
    artifact = sealed(store)
    store.verify(artifact)
    shutil.rmtree(artifact.path)
    store.verify(artifact)  # remembered; one check per process is the promise
    rebuilt = sealed(Store(tmp_path), files={"model.bin": b"other"})
    (rebuilt.path / "model.bin").write_bytes(b"0ther")
    with pytest.raises(IntegrityError):
        store.verify(rebuilt)


def test_what_a_killed_writer_left_is_not_sealed(tmp_path):
    store = Store(tmp_path)
    clean = sealed(store).manifest.content
    shutil.rmtree(store.path(STAGE, DIGEST))
    remains = {".trajectories.hdf5.ab12.partial": b"x", "sub/0.1234.partial": b"y", ".manifest.json.77": b"{"}
    artifact = sealed(store, files={**FILES, **remains, MANIFEST: b"of a sealing that was cut short"})
    assert {file.path for file in artifact.manifest.files} == set(FILES)
    assert artifact.manifest.content == clean
    read_back(tmp_path)


def test_nothing_is_not_sealed(tmp_path):
    store = Store(tmp_path)
    store.work(STAGE, DIGEST).mkdir(parents=True)
    with pytest.raises(StageError, match="wrote no files"):
        store.seal(STAGE, DIGEST, derivation={}, inputs={}, summary={}, seconds=0)
    assert store.find(STAGE, DIGEST) is None


def test_logs_are_no_content(tmp_path):
    store = Store(tmp_path)
    first = sealed(store, digest="a" * 64)
    second = sealed(store, digest="b" * 64, files=FILES | {"logs/metrics.jsonl": b"slower"})
    third = sealed(store, digest="c" * 64, files=FILES | {"model.bin": b"other"})
    assert first.manifest.content == second.manifest.content != third.manifest.content


def test_quarantine_keeps_the_evidence(tmp_path):
    store = Store(tmp_path)
    artifact = sealed(store)
    (artifact.path / "model.bin").write_bytes(b"bad")
    place = store.quarantine(STAGE, DIGEST, reason="bad bytes")
    assert store.find(STAGE, DIGEST) is None
    assert (place / "artifact" / "model.bin").read_bytes() == b"bad"
    assert (place / "reason.txt").read_text() == "bad bytes\n"
    assert list(store) == []
    sealed(store)
    assert read_back(tmp_path) is not None


@pytest.mark.parametrize("place", ["root", "root/artifacts"])
def test_a_root_that_cannot_be_written_is_named(tmp_path, place):
    """A file where a directory should be: it stops even a superuser, whom permissions do not."""
    blocked = tmp_path / place
    blocked.parent.mkdir(exist_ok=True)
    blocked.write_text("in the way")
    store = Store(tmp_path / "root")
    with pytest.raises(StorageError, match=str(blocked)), store.lock(STAGE, DIGEST):
        pytest.fail("was locked")
    with pytest.raises(StorageError, match=str(blocked)):
        store.lease(STAGE, DIGEST)


def test_an_error_under_the_lock_is_not_the_locks(tmp_path):
    """A body that fails to write is not reported as a lock that cannot be taken."""
    with pytest.raises(PermissionError, match="of the body"), Store(tmp_path).lock(STAGE, DIGEST):
        raise PermissionError("of the body")


def test_unsealed_work_is_invisible(tmp_path):
    store = Store(tmp_path)
    write_output(store, STAGE, DIGEST)
    assert store.find(STAGE, DIGEST) is None
    assert list(store) == []


def test_a_disk_without_locks_is_refused(tmp_path, monkeypatch):
    """A lock file that only lies there would outlive its killed holder."""

    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with (
        pytest.raises(
            StorageError, match=r"(?s)\.lock: Function not implemented.*file system that has locks"
        ),
        Store(tmp_path).lock(STAGE, DIGEST),
    ):
        pytest.fail("was locked")
