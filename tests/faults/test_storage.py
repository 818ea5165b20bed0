"""Disks that are full, read-only or in the way: exit code 3 before work and 4 during it, nothing half-written
to be seen, and the same command succeeds once there is room.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import TINY, ups

from ups.artifacts import Store
from ups.errors import StorageError
from ups.pipeline import execute as execute_module
from ups.pipeline.run import Run

OFF = {"tracking.wandb": "disabled", "execution.device": "cpu"}


def mount(place: Path, options: str) -> None:
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"may not mount a small disk here: {done.stderr.decode().strip()}")


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A disk of two megabytes."""
    place = tmp_path / "disk"
    place.mkdir()
    mount(place, "size=2m")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def fill(disk: Path, leave: int) -> Path:
    """Leave so many bytes free; returns the file to delete."""
    ballast = disk / "ballast"
    with ballast.open("ab") as file:
        file.write(b"\0" * max(0, shutil.disk_usage(disk).free - leave))
    return ballast


def start(root: Path, until: str) -> Run:
    return Run.start(TINY, OFF, root=root, until=until)


def test_a_run_without_room_is_refused_before_the_first_byte(small_disk):
    ballast = fill(small_disk, 100_000)
    done = ups("run", TINY, "--root", small_disk / "root")
    assert done.returncode == 3
    assert done.stderr.startswith(
        f"preflight error: {small_disk / 'root' / 'artifacts'}: this run will write about "
    )
    assert (
        "0.1 MB are free\n  fix: free space (`ups cache gc --dry-run` shows what may go) or choose another --root"
        in done.stderr
    )
    assert list(small_disk.iterdir()) == [ballast]


@pytest.mark.slow
def test_a_disk_that_fills_up_during_a_stage(small_disk, monkeypatch):
    """Somebody else's bytes come between the check and the writing."""
    with monkeypatch.context() as patched:
        patched.setattr(execute_module, "require_space", lambda *arguments: None)
        run = start(small_disk / "root", "download")
        ballast = fill(small_disk, 24_576)
        with pytest.raises(StorageError) as caught:
            run.stage("download", on_line=lambda line: None)
    assert caught.value.exit_code == 4
    assert str(small_disk) in str(caught.value)
    assert list(Store(small_disk / "root")) == []
    ballast.unlink()
    built = run.stage("download", on_line=lambda line: None)
    Store(small_disk / "root").verify(built.artifact, deep=True)
    run.close()


@pytest.mark.slow
def test_a_disk_that_fills_up_between_checkpoints(small_disk, tmp_path, finished_root):
    """Training stops with 4, and goes on from its last checkpoint when there is room."""
    root = small_disk / "root"
    for kind in ("data", "download"):
        shutil.copytree(finished_root[0] / "artifacts" / kind, root / "artifacts" / kind)
    run = start(root, "autoencoder")
    assert run.stage("download", on_line=lambda line: None).hit
    lines: list[str] = []

    def fill_up(stage: str, record: dict) -> None:
        if record["step"] >= 5:
            fill(small_disk, 0)

    with pytest.raises(StorageError, match=str(small_disk)) as caught:
        run.stage("autoencoder", on_line=lines.append, on_progress=fill_up)
    assert caught.value.exit_code == 4
    assert {path.parent.name for path in Store(root)} == {"data", "download"}
    (small_disk / "ballast").unlink()
    run.stage("autoencoder", on_line=lines.append)
    run.close()
    assert {path.parent.name for path in Store(root)} == {"data", "download", "autoencoder"}
    losses = [line.split("  ")[1] for line in lines if line.startswith("autoencoder 20/20  loss")]
    log = (finished_root[1] / "logs" / "autoencoder.log").read_text()
    # Twice, where the disk was full when the last step was done already.
    assert {*losses} == {
        line.split("  ")[1] for line in log.splitlines() if line.startswith("autoencoder 20/20  loss")
    }


@pytest.mark.slow
def test_a_disk_that_fills_up_before_sealing(small_disk, monkeypatch):
    """The stage is done; its word of that stays, and it is sealed without being run again."""
    root = small_disk / "root"
    run = start(root, "download")
    real_launch = execute_module.launch

    def launch_and_fill(*arguments, **options) -> int:
        code = real_launch(*arguments, **options)
        fill(small_disk, 0)
        return code

    with monkeypatch.context() as patched:
        patched.setattr(execute_module, "launch", launch_and_fill)
        with pytest.raises(StorageError, match="No space left on device\n  fix: free space"):
            run.stage("download", on_line=lambda line: None)
    assert {path.parent.name for path in Store(root)} == {"data"}
    (small_disk / "ballast").unlink()
    monkeypatch.setattr(execute_module, "launch", lambda *arguments, **options: pytest.fail("was run again"))
    built = run.stage("download", on_line=lambda line: None)
    Store(root).verify(built.artifact, deep=True)
    run.close()


def test_gc_works_on_a_full_disk(small_disk, finished_root):
    root = small_disk / "root"
    shutil.copytree(finished_root[0] / "artifacts", root / "artifacts")
    fill(small_disk, 0)
    done = ups("cache", "gc", "--root", root)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("removed ") == 11
    assert list(Store(root)) == []


def test_a_read_only_root_is_4_and_named(small_disk):
    root = small_disk / "root"
    root.mkdir()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    for arguments in (["stage", "download", TINY, "--root", root], ["stage", "download", TINY]):
        done = ups(*arguments, UPS_ROOT=str(root))
        assert done.returncode == 4
        assert done.stderr.startswith(
            f"storage error: {root}/runs: Read-only file system\n  fix: make it a directory"
        )
        assert "Traceback" not in done.stderr


def test_a_file_in_place_of_the_root_is_4_and_named(tmp_path):
    """Stops a superuser too."""
    (tmp_path / "root").write_text("a file")
    done = ups("stage", "download", TINY, "--root", tmp_path / "root")
    assert done.returncode == 4
    assert done.stderr.startswith(f"storage error: {tmp_path / 'root'}")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "runs").write_text("a file")
    done = ups("stage", "download", TINY, "--root", tmp_path / "other")
    assert done.returncode == 4
    assert done.stderr.startswith(f"storage error: {tmp_path / 'other' / 'runs'}: File exists")


@pytest.mark.skipif(os.geteuid() == 0, reason="a superuser may write everywhere")
def test_a_root_without_permission_is_4_and_named(tmp_path):
    tmp_path.chmod(0o500)
    done = ups("stage", "download", TINY, "--root", tmp_path / "root")
    tmp_path.chmod(0o700)
    assert done.returncode == 4
    assert f"{tmp_path / 'root'}" in done.stderr


def test_too_few_open_files_is_4(finished_root, tmp_path):
    """The lock files of a run are descriptors, too."""
    import resource

    shutil.copytree(finished_root[0], tmp_path / "root")  # whose artifacts are all held from the start
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    run = None
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(Path("/proc/self/fd").iterdir())) + 3, hard))
        with pytest.raises(StorageError, match=r"Too many open files\n  fix: raise the limit on open files"):
            run = start(tmp_path / "root", "evaluate")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        if run is not None:
            run.close()
