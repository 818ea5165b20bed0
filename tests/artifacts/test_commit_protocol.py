"""Killed at any system call, or refused any: old or new, never half; and the next attempt succeeds.

strace attaches to a forked child of this process, so that hundreds of cases cost seconds.
"""

import collections
import os
import re
import shutil
import subprocess
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from sealing import FILES, sealed, write_output

from ups.artifacts import Store
from ups.artifacts.files import read_json, write_json
from ups.errors import StorageError

STAGE, DIGEST = "operator", "a" * 64
CHANGES = ("openat", "write", "fsync", "rename", "mkdir", "unlink", "unlinkat", "rmdir")
SUCCEEDED, FAILED_IN_ORDER, KILLED = 0, StorageError.exit_code, -9


def traced(action: Callable[[], object], *options: str) -> tuple[int, str]:
    """Run an action in a child under strace; its exit code, and strace's record."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    ready, go = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.read(ready, 1)
            action()
            code = SUCCEEDED
        except StorageError:
            code = FAILED_IN_ORDER
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    tracer = subprocess.Popen(
        [strace, "-f", "-p", str(pid), "-e", f"trace={','.join(CHANGES)}", *options],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert tracer.stderr is not None
    try:
        first = tracer.stderr.readline()
    finally:
        os.write(go, b"!")
        os.close(go)
        os.close(ready)
    if "attached" not in first:
        os.waitpid(pid, 0)
        tracer.wait()
        pytest.skip(f"strace may not trace here: {first.strip()}")
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), tracer.communicate()[1]


def calls(action: Callable[[], object]) -> list[tuple[str, int]]:
    """(system call, how manieth of its kind) for every change that an action makes."""
    code, record = traced(action)
    assert code == SUCCEEDED, record
    counts = collections.Counter(re.findall(r"^(\w+)\(", record, re.MULTILINE))
    assert counts["fsync"]
    assert counts["rename"]
    return [(name, k) for name in CHANGES for k in range(1, counts[name] + 1)]


def seal(root: Path) -> None:
    sealed_files = {"derivation": {}, "inputs": {}, "summary": {}, "seconds": 1.0}
    Store(root).seal(STAGE, DIGEST, **sealed_files)


def prepared(root: Path) -> Path:
    shutil.rmtree(root, ignore_errors=True)
    write_output(Store(root), STAGE, DIGEST)
    (root / "artifacts" / ".work" / STAGE / DIGEST / "outcome.json").write_text("{}")
    return root


def whole_or_nothing(root: Path) -> bool:
    """Whether the artifact is there; if so, it is whole."""
    store = Store(root)
    artifact = store.find(STAGE, DIGEST)
    if artifact is None:
        assert (store.work(STAGE, DIGEST) / "output" / "model.bin").exists(), "neither sealed nor kept"
        return False
    store.verify(artifact, deep=True)
    assert {file.path for file in artifact.manifest.files} == set(FILES)
    return True


@pytest.mark.slow
def test_sealing_killed_at_every_call(tmp_path):
    root = tmp_path / "root"
    prepared(root)
    cases = calls(lambda: seal(root))
    assert len(cases) > 20
    seen = set()
    for name, k in cases:
        prepared(root)
        code, record = traced(lambda: seal(root), "-e", f"inject={name}:signal=SIGKILL:when={k}")
        assert code == KILLED, (name, k, record)
        there = whole_or_nothing(root)
        seen.add(there)
        if not there:
            seal(root)
            assert whole_or_nothing(root), (name, k)
    assert seen == {True, False}, "both sides of the commit were tried"


@pytest.mark.slow
@pytest.mark.parametrize("error", ["ENOSPC", "EIO"])
def test_sealing_refused_at_every_call(tmp_path, error):
    root = tmp_path / "root"
    prepared(root)
    for name, k in calls(lambda: seal(root)):
        prepared(root)
        code, record = traced(lambda: seal(root), "-e", f"inject={name}:error={error}:when={k}")
        there = whole_or_nothing(root)
        # Only removing the emptied work directory may fail unheard: the artifact is sealed by then.
        assert code == FAILED_IN_ORDER or (code == SUCCEEDED and there), (name, k, code, record)
        if not there:
            seal(root)
            assert whole_or_nothing(root), (name, k)


def test_bytes_reach_the_disk_before_the_name_that_vouches_for_them(tmp_path):
    """A power failure keeps what was flushed: files, then the manifest, then the rename, then its directory."""
    root = prepared(tmp_path / "root")
    code, record = traced(lambda: seal(root), "-y")
    assert code == SUCCEEDED
    steps = re.findall(r'(fsync)\(\d+<([^>]+)>|(rename)\("([^"]+)", "([^"]+)"', record)
    steps = [("fsync", path) if call else ("rename", target) for call, path, _, _, target in steps]
    store = Store(root)
    output, final = store.work(STAGE, DIGEST) / "output", store.path(STAGE, DIGEST)
    manifest, commit = steps.index(("rename", f"{output}/manifest.json")), steps.index(("rename", str(final)))
    (written_aside,) = [path for _, path in steps if path.startswith(f"{output}/.manifest.json")]
    for path in (*(f"{output}/{name}" for name in FILES), f"{output}/sub", f"{output}/logs", written_aside):
        assert steps.index(("fsync", path)) < manifest, path
    assert ("fsync", str(output)) in steps[manifest:commit]
    for path in (final.parent, store.artifacts, root):
        assert ("fsync", str(path)) in steps[commit:], path


def test_a_json_file_killed_at_every_call(tmp_path):
    path = tmp_path / "state.json"
    for name, k in calls(lambda: write_json(path, {"value": "new"})):
        path.unlink(missing_ok=True)
        write_json(path, {"value": "old"})
        traced(lambda: write_json(path, {"value": "new"}), "-e", f"inject={name}:signal=SIGKILL:when={k}")
        assert read_json(path)["value"] in {"old", "new"}, (name, k)


def test_a_refused_write_leaves_nothing_behind(tmp_path):
    path = tmp_path / "state.json"
    write_json(path, {"value": "old"})
    for name in ("write", "fsync", "rename"):
        code, _ = traced(lambda: write_json(path, {"value": "new"}), "-e", f"inject={name}:error=ENOSPC")
        assert code == FAILED_IN_ORDER
        assert [file.name for file in tmp_path.iterdir()] == ["state.json"], name
        assert read_json(path) == {"value": "old"}


def test_what_is_sealed_is_set_aside_for_other_bytes_and_stays_for_the_same(tmp_path):
    store = Store(tmp_path)
    first = sealed(store, STAGE, DIGEST)
    inode = (first.path / "model.bin").stat().st_ino
    again = sealed(store, STAGE, DIGEST)
    assert again.manifest.content == first.manifest.content
    assert (again.path / "model.bin").stat().st_ino == inode
    other = sealed(store, STAGE, DIGEST, {"model.bin": b"second"})
    assert Store(tmp_path).find(STAGE, DIGEST) == other
    [aside] = store.artifacts.glob(".quarantine/*/artifact/model.bin")
    assert aside.stat().st_ino == inode
