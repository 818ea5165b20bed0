"""Cleaning up removes what nothing needs, and nothing else, whoever is at work."""

import fcntl
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sealing import sealed, write_output

from ups.artifacts import Store
from ups.artifacts.collection import collect, entries, verify
from ups.artifacts.store import BusyError
from ups.errors import IntegrityError

A, B = "a" * 64, "b" * 64


def point(store: Store, run: str, stage: str, digest: str) -> None:
    directory = store.root / "runs" / run
    directory.mkdir(parents=True, exist_ok=True)
    path = os.path.relpath(store.path(stage, digest), directory)
    (directory / "artifacts.json").write_text(json.dumps({stage: {"path": path}}))


def kept_and_removed(store: Store, *, dry_run: bool = False) -> tuple[dict[str, str], list[str]]:
    removals = list(collect(store, dry_run=dry_run))
    kept = {removal.path.name: removal.kept for removal in removals if removal.kept}
    return kept, [removal.path.name for removal in removals if not removal.kept]


def test_what_runs_point_to_stays(tmp_path):
    store = Store(tmp_path)
    sealed(store, "download", A)
    sealed(store, "download", B)
    point(store, "20260101-x", "download", A)
    assert kept_and_removed(store, dry_run=True) == ({A: "run 20260101-x points to it"}, [B])
    assert store.find("download", B) is not None
    assert kept_and_removed(store) == ({A: "run 20260101-x points to it"}, [B])
    assert store.find("download", A) is not None
    assert store.find("download", B) is None
    assert [path.name for path in (store.artifacts / "download").iterdir()] == [A]


def test_work_and_quarantine_go(tmp_path):
    store = Store(tmp_path)
    write_output(store, "operator", A)
    sealed(store, "download", B)
    place = store.quarantine("download", B, reason="test")
    assert kept_and_removed(store) == ({}, [A, place.name])
    assert not store.work("operator", A).exists()
    assert not place.exists()


def test_what_a_killed_gc_left_goes(tmp_path):
    store = Store(tmp_path)
    sealed(store, "download", A).path.rename(store.artifacts / "download" / ".removed-aaaa-1")
    assert list(store) == []
    assert kept_and_removed(store) == ({}, [".removed-aaaa-1"])


def test_leased_and_locked_artifacts_stay(tmp_path):
    store = Store(tmp_path)
    sealed(store, "download", A)
    write_output(store, "operator", B)
    in_use = "a running process uses it"
    with store.lease("download", A), Store(tmp_path).lock("operator", B):
        assert kept_and_removed(store) == ({A: in_use, B: in_use}, [])
    assert kept_and_removed(store) == ({}, [A, B])


def test_work_that_orphans_still_write_in_stays(tmp_path):
    """The stage of a killed parent: nobody holds the artifact's lock, and a checkpoint is being written."""
    store = Store(tmp_path)
    write_output(store, "operator", A)
    with (store.work("operator", A) / "launch.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert kept_and_removed(store) == ({A: "a running process uses it"}, [])
    assert kept_and_removed(store) == ({}, [A])


def test_leases_are_shared_and_end_with_their_process(tmp_path):
    store = Store(tmp_path)
    sealed(store, "download", A)
    program = (
        "import sys, time; from pathlib import Path; from ups.artifacts import Store;"
        f"lease = Store(Path(sys.argv[1])).lease('download', '{A}'); print('leased', flush=True); time.sleep(600)"
    )
    holders = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        for holder in holders:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "leased\n"
        for holder in holders:
            with pytest.raises(BusyError), store.alone("download", A):
                pytest.fail("had it alone")
            holder.kill()
            holder.wait()
    finally:
        for holder in holders:
            holder.kill()
            holder.wait()
            assert holder.stdout is not None
            holder.stdout.close()
    with store.alone("download", A):
        pass


def test_nothing_that_is_in_use_is_lost_while_gc_runs_all_the_time(tmp_path):
    """A process seals, points and verifies, with gc in a loop beside it."""
    store = Store(tmp_path)
    loop = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from pathlib import Path; from ups.artifacts import Store\n"
            "from ups.artifacts.collection import collect\n"
            "while True:\n    list(collect(Store(Path(sys.argv[1])), dry_run=False))",
            str(tmp_path),
        ]
    )
    try:
        for number in range(40):
            digest = f"{number:064d}"
            with store.lease("download", digest), store.lock("download", digest):
                artifact = sealed(store, "download", digest)
                time.sleep(0.02)
                point(store, f"run-{number}", "download", digest)
            Store(tmp_path).verify(artifact)
        assert loop.poll() is None
    finally:
        loop.kill()
        loop.wait()
    assert len(list(store)) == 40


def test_damaged_pointers_stop_gc_before_it_removes_anything(tmp_path):
    store = Store(tmp_path)
    sealed(store, "download", A)
    point(store, "x", "download", B)
    (tmp_path / "runs" / "x" / "artifacts.json").write_text("{")
    with pytest.raises(IntegrityError, match=r"runs/x/artifacts\.json"):
        kept_and_removed(store)
    assert store.find("download", A) is not None


def test_entries_and_verification_name_what_is_wrong(tmp_path):
    store = Store(tmp_path)
    sealed(store, "download", A)
    damaged = sealed(store, "operator", B)
    point(store, "r", "download", A)
    (damaged.path / "model.bin").write_bytes(b"")
    (store.artifacts / "operator" / "stray").mkdir()
    listed = {entry.path.name: entry for entry in entries(store)}
    assert listed[A].runs == ["r"]
    assert listed[A].problem is None
    assert listed["stray"].problem is not None
    problems = {entry.path.name: problem for entry, problem in verify(store, deep=True)}
    assert problems[A] is None
    assert "model.bin has 0 bytes" in problems[B]
    assert problems["stray"] is not None


def test_an_empty_root(tmp_path):
    assert kept_and_removed(Store(Path(tmp_path))) == ({}, [])
    assert list(entries(Store(tmp_path))) == []
