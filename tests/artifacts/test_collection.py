"""Cleaning up removes what nothing needs, and nothing else, whoever is at work."""

import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sealing import FILES, sealed, write_output

from ups.artifacts import Artifact, Store
from ups.artifacts.collection import IN_USE, Policy, Removal, choose, collect, entries, leftovers, verify
from ups.artifacts.files import write_json
from ups.artifacts.manifest import MANIFEST
from ups.artifacts.pins import pin, unpin
from ups.artifacts.store import BusyError
from ups.errors import ConfigurationError, IntegrityError

A, B, C, D = ("abcd"[i] * 64 for i in range(4))
NOW = datetime.now(UTC).replace(microsecond=0)


def point(store: Store, run: str, stage: str, digest: str) -> None:
    """Write the pointers of a run, as runs do: a reader sees all of them or none."""
    directory = store.root / "runs" / run
    path = os.path.relpath(store.path(stage, digest), directory)
    write_json(directory / "artifacts.json", {stage: {"path": path}})


def kept_and_removed(
    store: Store, *, dry_run: bool = False, policy: Policy | None = None
) -> tuple[dict[str, str], list[str]]:
    removals = list(collect(store, dry_run=dry_run, policy=policy))
    kept = {removal.path.name: removal.kept for removal in removals if removal.kept}
    return kept, [removal.path.name for removal in removals if not removal.kept]


def age(artifact: Artifact, days: float) -> Artifact:
    """Let it have been sealed some days ago."""
    created = (NOW - timedelta(days=days)).isoformat(timespec="seconds")
    manifest = replace(artifact.manifest, created=created)
    write_json(artifact.path / MANIFEST, manifest.to_json())
    return Artifact(artifact.path, manifest)


def run_name(days: float) -> str:
    """Of a run that started some days ago."""
    return f"{NOW - timedelta(days=days):%Y%m%dT%H%M%SZ}-x-00000000"


def start_holder(root: Path, stage: str, digest: str) -> subprocess.Popen[str]:
    program = (
        "import sys, time; from pathlib import Path; from ups.artifacts import Store;"
        f"lease = Store(Path(sys.argv[1])).lease('{stage}', '{digest}'); print('leased', flush=True); time.sleep(600)"
    )
    return subprocess.Popen([sys.executable, "-c", program, str(root)], stdout=subprocess.PIPE, text=True)


@contextmanager
def held_by_another_process(root: Path, stage: str, digest: str) -> Iterator[None]:
    holder = start_holder(root, stage, digest)
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "leased\n"
        yield
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()


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


def test_work_that_a_run_can_go_on_with_stays_unless_it_is_asked_for(tmp_path):
    store = Store(tmp_path)
    for digest in (A, B):
        write_output(store, "operator", digest)
    planned = [{"stage": "operator", "digest": A}, {"stage": "diffusion", "digest": None}]
    write_json(tmp_path / "runs" / "20260101-x" / "plan.json", planned)
    reason = "run 20260101-x can go on with it (--include-work removes it)"
    assert kept_and_removed(store) == ({A: reason}, [B])
    sealed(store, "diffusion", A)
    write_output(store, "diffusion", A)  # what a sealing left behind
    planned[1]["digest"] = A
    write_json(tmp_path / "runs" / "20260101-x" / "plan.json", planned)
    point(store, "20260101-x", "diffusion", A)
    assert kept_and_removed(store)[1] == [A]
    assert not store.work("diffusion", A).exists()
    assert store.work("operator", A).exists()
    store.remove(store.path("diffusion", A))
    write_json(tmp_path / "runs" / "20260101-x" / "artifacts.json", {})
    assert kept_and_removed(store, policy=Policy(include_work=True)) == ({}, [A])
    write_json(tmp_path / "runs" / "20260101-x" / "plan.json", {})
    assert kept_and_removed(store) == ({}, [])
    write_json(tmp_path / "runs" / "20260101-x" / "plan.json", ["operator"])
    with pytest.raises(IntegrityError, match=r"plan\.json: is no plan"):
        kept_and_removed(store)


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
    holders = [start_holder(tmp_path, "download", A) for _ in range(2)]
    try:
        for holder in holders:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "leased\n"
        for holder in holders:
            with pytest.raises(BusyError), store.exclusive("download", A):
                pytest.fail("had it to itself")
            holder.kill()
            holder.wait()
    finally:
        for holder in holders:
            holder.kill()
            holder.wait()
            assert holder.stdout is not None
            holder.stdout.close()
    with store.exclusive("download", A):
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


def pointed_store(root: Path) -> Store:
    """Four artifacts of about equal size, each with a run: used 40, 30, 20 and 10 days ago."""
    store = Store(root)
    for digest, days in ((A, 20), (B, 40), (C, 10), (D, 30)):
        age(sealed(store, "download", digest), 50)
        point(store, run_name(days), "download", digest)
    return store


def held_bytes(store: Store) -> int:
    return sum(path.stat().st_size for directory in store for path in directory.rglob("*") if path.is_file())


def test_last_use_is_that_of_the_newest_run_or_of_what_was_made_of_it(tmp_path):
    store = Store(tmp_path)
    download = age(sealed(store, "download", A), 9)
    operator = age(sealed(store, "operator", B, inputs={"download": download}), 6)
    sealed_later = age(sealed(store, "evaluate", C, inputs={"operator": operator}), 2)
    point(store, run_name(7), "download", A)
    point(store, run_name(4), "operator", B)
    used = {entry.stage: entry.used for entry in entries(store)}
    assert used["evaluate"] == datetime.fromisoformat(sealed_later.manifest.created)
    assert used["operator"] == used["download"] == used["evaluate"]
    store.remove(store.path("evaluate", C))
    used = {entry.stage: entry.used for entry in entries(store)}
    assert used["download"] == used["operator"] == NOW - timedelta(days=4)
    store.remove(store.path("operator", B))
    (entry,) = entries(store)
    assert (entry.created, entry.used) == (NOW - timedelta(days=9), NOW - timedelta(days=7))


def test_runs_are_listed_oldest_first_also_one_whose_owner_renamed_it(tmp_path):
    store = Store(tmp_path)
    sealed(store, "download", A)
    names = [run_name(3), "renamed", run_name(1)]
    for name in names:
        point(store, name, "download", A)
    two_days_ago = (NOW - timedelta(days=2)).timestamp()
    os.utime(tmp_path / "runs" / "renamed" / "artifacts.json", (two_days_ago, two_days_ago))
    assert entries(store)[0].runs == names


def test_a_quota_removes_the_least_recently_used_first_and_no_more_than_needed(tmp_path):
    store = pointed_store(tmp_path)
    whole = held_bytes(store)
    one = whole // 4
    assert kept_and_removed(store, policy=Policy(quota=whole))[1] == []
    expected = [B, D]
    quota = Policy(quota=whole - one - 1)
    _, would = kept_and_removed(store, dry_run=True, policy=quota)
    assert would == expected
    assert held_bytes(store) == whole, "a dry run removes nothing"
    removals = [removal for removal in collect(store, dry_run=False, policy=quota) if not removal.kept]
    assert [removal.path.name for removal in removals] == expected
    assert [removal.runs for removal in removals] == [(run_name(40),), (run_name(30),)]
    assert held_bytes(store) <= whole - one - 1
    assert {path.name for path in store} == {A, C}


def test_a_quota_takes_results_before_what_they_were_made_of(tmp_path):
    store = Store(tmp_path)
    download = age(sealed(store, "download", A), 9)
    operator = age(sealed(store, "operator", B, inputs={"download": download}), 8)
    age(sealed(store, "evaluate", C, inputs={"download": download, "operator": operator}), 7)
    run = tmp_path / "runs" / run_name(9)
    run.mkdir(parents=True)
    paths = {path.parent.name: {"path": os.path.relpath(path, run)} for path in store}
    (run / "artifacts.json").write_text(json.dumps(paths))
    assert kept_and_removed(store, policy=Policy(quota=0))[1] == [C, B, A]


def test_a_quota_counts_what_goes_anyway_before_it_takes_from_runs(tmp_path):
    store = pointed_store(tmp_path)
    whole = held_bytes(store)
    write_output(store, "operator", A)
    sealed(store, "operator", B)
    kept, removed = kept_and_removed(store, policy=Policy(quota=whole))
    assert len(kept) == 4
    assert sorted(removed) == [A, B]


def test_neither_pins_nor_what_is_in_use_goes_for_a_quota(tmp_path):
    store = pointed_store(tmp_path)
    pin(store, "download", B, note="figure 3")
    with held_by_another_process(tmp_path, "download", D):
        kept, removed = kept_and_removed(store, policy=Policy(quota=0))
    assert kept == {B: "pinned (figure 3)", D: IN_USE}
    assert removed == [A, C]
    unpin(store, "download", B)
    assert kept_and_removed(store, policy=Policy(quota=0)) == ({}, [B, D])


def test_pinned_artifacts_and_their_work_stay_without_a_run(tmp_path):
    store = Store(tmp_path)
    sealed(store, "download", A)
    pin(store, "download", A)
    write_output(store, "download", A)
    write_output(store, "download", B)
    assert kept_and_removed(store) == ({A: "pinned"}, [B])
    assert store.work("download", A).exists()


def test_age_spares_what_was_used_or_written_lately(tmp_path):
    store = Store(tmp_path)
    age(sealed(store, "download", A), 31)
    age(sealed(store, "download", B), 29)
    old, new = (write_output(store, "operator", digest) for digest in (C, D))
    long_ago = (NOW - timedelta(days=31)).timestamp()
    for path in (old.parent, *old.parent.rglob("*")):
        os.utime(path, (long_ago, long_ago))
    kept, removed = kept_and_removed(store, policy=Policy(older_than=timedelta(days=30)))
    assert removed == [A, C]
    assert kept[B].startswith("used too recently (")
    assert kept[D].startswith("written too recently (")
    assert new.exists()


def test_age_and_runs(tmp_path):
    """Runs are spared unless they are included; then their age counts, and under a quota too."""
    month = timedelta(days=25)
    store = pointed_store(tmp_path)
    assert kept_and_removed(store, policy=Policy(older_than=month))[1] == []
    kept, removed = kept_and_removed(store, dry_run=True, policy=Policy(older_than=month, include_runs=True))
    assert removed == [B, D]
    assert set(kept) == {A, C}
    kept, removed = kept_and_removed(store, policy=Policy(older_than=month, quota=0))
    assert removed == [B, D]
    assert all(reason.startswith("used too recently (") for reason in kept.values())


def test_including_runs_of_any_age_is_refused():
    with pytest.raises(ConfigurationError, match="--include-runs: would remove what every run points to"):
        Policy(include_runs=True)


def test_a_run_that_ends_while_gc_is_at_work_keeps_what_it_points_to(tmp_path):
    """The list was made before the run wrote its pointers: what counts is looked up under the lock."""
    store = pointed_store(tmp_path)
    sealed(store, "operator", A)
    removals = collect(store, dry_run=False, policy=Policy(quota=0))
    first = next(removals)
    assert first == Removal(store.path("operator", A), first.bytes, used=first.used)
    point(store, "later", "download", B)
    pin(store, "download", C)
    rest = {removal.path.name: removal.kept for removal in removals}
    assert rest == {A: None, B: "run later points to it", C: "pinned", D: None}


def test_what_another_process_removed_meanwhile_counts_for_the_quota(tmp_path):
    store = pointed_store(tmp_path)
    removals = collect(store, dry_run=False, policy=Policy(quota=held_bytes(store) * 7 // 8))
    sealed(store, "operator", A)
    assert next(removals).kept is None, "operator: the list has been made"
    store.remove(store.path("download", B))
    kept = {removal.path.name: removal.kept for removal in removals}
    assert kept.pop(B) == "another process removed it"
    assert kept == {
        digest: f"run {run_name(days)} points to it" for digest, days in ((A, 20), (C, 10), (D, 30))
    }


def test_what_is_no_artifact_is_accounted_for(tmp_path):
    store = Store(tmp_path)
    write_output(store, "operator", A)
    sealed(store, "download", B)
    store.quarantine("download", B, reason="model.bin is missing")
    sealed(store, "download", C).path.rename(store.artifacts / "download" / ".removed-cccc-1")
    found = {leftover.kind: leftover for leftover in leftovers(store)}
    assert set(found) == {"work", "quarantine", "remains"}
    assert (found["work"].stage, found["work"].digest) == ("operator", A)
    assert found["work"].bytes == sum(map(len, FILES.values()))
    assert (found["quarantine"].stage, found["quarantine"].digest) == ("download", B)
    assert found["quarantine"].problem == "model.bin is missing"
    assert all(leftover.bytes == sum_of_sizes(leftover.path) for leftover in found.values())
    assert all(abs(leftover.written - datetime.now(UTC)) < timedelta(hours=1) for leftover in found.values())


def sum_of_sizes(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def test_verification_of_chosen_artifacts(tmp_path):
    store = Store(tmp_path)
    for digest in (A, B):
        (sealed(store, "operator", digest).path / "model.bin").write_bytes(b"")
    started = []
    ((entry, problem),) = verify(Store(tmp_path), deep=False, only={("operator", A)}, on_start=started.append)
    assert entry.digest == A
    assert problem is not None
    assert started == [entry]


def test_a_directory_that_holds_another_artifact_is_a_problem(tmp_path):
    store = Store(tmp_path)
    sealed(store, "operator", A).path.rename(store.path("operator", B))
    (entry,) = entries(store)
    assert entry.problem is not None
    assert "holds operator aaaaaaaaaaaa" in entry.problem


KNOWN = [("download", "abcd1" + "0" * 59), ("operator", "abcd2" + "0" * 59), ("operator", "abce" + "0" * 60)]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("abcd1", 0), ("abcd2", 1), ("abce", 2), ("download/abcd", 0), ("operator/abcd", 1),
        (KNOWN[2][1], 2), (f"operator/{KNOWN[1][1]}", 1),
    ],
)  # fmt: skip
def test_a_unique_prefix_is_enough(name, meant):
    assert choose(KNOWN, name) == KNOWN[meant]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("abc", r"'abc' is too short for a digest"),
        ("operator/", r"'' is too short"),
        ("abcd", r"abcd: is ambiguous:\n    download/abcd10+\n    operator/abcd20+\n  fix"),
        ("operator/abc", r"too short"),
        ("ffff", r"no artifact has this digest; there are:\n    download/abcd10+\n    operator/abcd2"),
        ("operator/abcd1", r"no artifact has this digest; there are:\n    operator/abcd20+\n    operator/abce0+\n  fix"),
        ("nothing/abcd1", r"no artifact has this digest; there are:\n    download/abcd1"),
    ],
)  # fmt: skip
def test_what_names_none_or_several_is_refused_with_what_there_is(name, message):
    with pytest.raises(ConfigurationError, match=message):
        choose(KNOWN, name)


def test_no_more_candidates_are_told_than_can_be_read():
    many = [("operator", f"abcd{number:060d}") for number in range(20)]
    with pytest.raises(ConfigurationError, match="and 12 more"):
        choose(many, "abcd")
    with pytest.raises(ConfigurationError, match="the store is empty"):
        choose([], "abcd")


def test_pointers_of_another_shape_are_damage(tmp_path):
    store = Store(tmp_path)
    point(store, "x", "download", A)
    (tmp_path / "runs" / "x" / "artifacts.json").write_text("[1]")
    with pytest.raises(IntegrityError, match=r"runs/x/artifacts\.json: holds no pointers"):
        entries(store)
