"""A stage is built once, under its lock, whatever was left behind, and sealed only when it may be."""

import fcntl
import json
import os
import shutil
import threading
import time
from collections import namedtuple
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from command_line import TINY, start_ups
from sealing import FILES, sealed, sealed_parts, write_output

from ups.artifacts import Artifact, Store
from ups.artifacts import store as store_module
from ups.artifacts.identity import digest_of
from ups.artifacts.manifest import MANIFEST
from ups.config import load_configuration
from ups.errors import (
    DataError,
    IntegrityError,
    Interrupted,
    PreflightError,
    ProcessKilled,
    StageError,
    StorageError,
)
from ups.pipeline import execute as execute_module
from ups.pipeline.execute import Built, Listener, execute
from ups.pipeline.plan import derive
from ups.pipeline.rebuild import NOTHING, Rebuild

CONFIGURATION = load_configuration(TINY, {"execution.device": "cpu"})
Usage = namedtuple("Usage", "total used free")


class Stage:
    """The stage `autoencoder` on a sealed input, with a launch that only writes files."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store = Store(root)
        self.configuration = CONFIGURATION
        self.use(self.seal_input(b"data"))
        self.lines: list[str] = []
        self.records: list[dict] = []
        self.launches = 0
        self.found_checkpoints: list[bool] = []
        self.files = FILES
        self.returncode = 0
        monkeypatch.setattr(execute_module, "launch", self.launch)

    def seal_input(self, content: bytes) -> Artifact:
        digest = digest_of(derive("download", CONFIGURATION, {}, self.store))
        shutil.rmtree(self.store.path("download", digest), ignore_errors=True)
        summary = {"problems": {"burgers1d": {"frames": 9, "grid": [32]}}}
        store = Store(self.store.root)
        parts = sealed_parts(store, CONFIGURATION, content)
        return sealed(store, "download", digest, {"x": content}, summary=summary, parts=parts)

    def use(self, artifact: Artifact) -> None:
        self.input = artifact
        self.derive(derive("autoencoder", self.configuration, {"download": artifact}, self.store))

    def derive(self, derivation: dict) -> None:
        self.derivation, self.digest = derivation, digest_of(derivation)
        self.work = self.store.work("autoencoder", self.digest)

    def launch(self, module, arguments, *, work, **options) -> int:
        self.launches += 1
        self.found_checkpoints.append((work / "checkpoints").exists())
        assert (module, arguments[0]) == ("ups.stages", "autoencoder")
        assert json.loads((work / "request.json").read_text())["digest"] == self.digest
        if self.returncode == 0:
            write_output(self.store, "autoencoder", self.digest, self.files)
            (work / "outcome.json").write_text(json.dumps({"summary": {"loss": 0.5}}))
        options["on_line"]("a line")
        return self.returncode

    def execute(self, rebuild: Rebuild = NOTHING) -> Built:
        return execute(
            "autoencoder",
            self.derivation,
            self.configuration,
            {"download": self.input},
            self.store,
            Listener(self.lines.append, self.records.append),
            self.store.root / "log.txt",
            rebuild,
        )

    def ask_again(self) -> Rebuild:
        """Somebody asks a second after the artifact was sealed; dates are whole seconds."""
        manifest = self.store.find("autoencoder", self.digest).manifest
        return Rebuild(("autoencoder",), datetime.fromisoformat(manifest.created) + timedelta(seconds=1))


@pytest.fixture
def stage(tmp_path, monkeypatch):
    return Stage(tmp_path, monkeypatch)


def test_a_stage_that_is_asked_for_again_keeps_its_artifact_where_the_bytes_are_the_same(stage, monkeypatch):
    first = stage.execute().artifact
    files = {path: path.stat().st_ino for path in first.path.iterdir() if path.name != MANIFEST}
    rebuild = stage.ask_again()
    # A stage that takes two seconds.
    later = SimpleNamespace(now=lambda zone: datetime.now(zone) + timedelta(seconds=2))
    monkeypatch.setattr(store_module, "datetime", later)
    again = stage.execute(rebuild)
    assert (again.hit, again.reason, stage.launches) == (False, "rebuild: asked for", 2)
    assert "autoencoder: rebuild: asked for; what is sealed stays until the new one is" in stage.lines
    assert {path: path.stat().st_ino for path in files} == files, "nobody who reads it is disturbed"
    assert again.artifact.manifest.content == first.manifest.content
    assert again.artifact.manifest.created > first.manifest.created
    assert stage.execute(rebuild).hit, "a retry does not ask again"
    fresh = Store(stage.store.root)
    found = fresh.find("autoencoder", stage.digest)
    assert fresh.is_unchanged(found)
    fresh.verify(found, deep=True)


def test_a_stage_that_comes_out_different_takes_the_place_of_what_is_set_aside(stage):
    first = stage.execute().artifact
    held = next(path for path in first.path.iterdir() if path.name in FILES).open("rb")
    stage.files = {name: content + b"!" for name, content in FILES.items()}
    again = stage.execute(stage.ask_again()).artifact
    assert again.manifest.content != first.manifest.content
    assert stage.store.find("autoencoder", stage.digest).manifest.content == again.manifest.content
    [aside] = (stage.store.artifacts / ".quarantine").iterdir()
    assert (aside / "reason.txt").read_text() == "was built again on request, and came out different\n"
    assert all((aside / "artifact" / name).read_bytes() == content for name, content in FILES.items())
    assert held.read() in FILES.values()
    held.close()


def test_a_stage_that_fails_when_it_is_asked_for_again_leaves_what_was_there(stage):
    stage.execute()
    first, rebuild = stage.store.find("autoencoder", stage.digest), stage.ask_again()
    stage.returncode = 1
    with pytest.raises(ProcessKilled):
        stage.execute(rebuild)
    assert stage.store.find("autoencoder", stage.digest) == first
    assert stage.execute().hit


def test_a_replacement_that_was_cut_short_is_finished(stage, monkeypatch):
    """Killed when the old one is set aside and the new one is not yet in its place."""
    stage.execute()
    rebuild = stage.ask_again()
    stage.files = {name: content + b"!" for name, content in FILES.items()}
    rename = Path.rename

    def killed(path: Path, target: Path) -> Path:
        if path.name == "output":
            raise KeyboardInterrupt
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            stage.execute(rebuild)
    assert not stage.execute(rebuild).hit
    assert stage.launches == 2, "sealed without another launch"


def test_built_once_and_then_found(stage):
    first = stage.execute()
    assert not first.hit
    assert first.artifact.manifest.summary == {"loss": 0.5}
    assert first.artifact.manifest.inputs == {
        "download": {"digest": stage.input.digest, "content": stage.input.manifest.content}
    }
    assert stage.execute().hit
    assert stage.launches == 1
    assert stage.records == [{"step": 1}]


def test_damage_is_set_aside_and_rebuilt(stage):
    built = stage.execute()
    (built.artifact.path / "model.bin").write_bytes(b"bad")
    stage.store = Store(stage.store.root)  # another process
    again = stage.execute()
    assert not again.hit
    assert "damaged" in again.reason
    assert any("quarantine" in line for line in stage.lines)
    assert len(list((stage.store.artifacts / ".quarantine").iterdir())) == 1
    assert again.artifact.manifest.content == built.artifact.manifest.content


def test_bytes_that_changed_unseen_are_found_by_whoever_goes_on_with_them(stage):
    """A disk's flipped bit changes no time of anything: a plan does not see it."""
    built = stage.execute().artifact
    (built.path / "model.bin").write_bytes(b"bad")
    stage.store._remember(built, store_module._file_statuses(built))
    stage.store = Store(stage.store.root)
    assert stage.store.is_unchanged(built)
    again = stage.execute()
    assert not again.hit
    assert "damaged" in again.reason


def test_an_input_that_another_process_rebuilds_meanwhile_is_not_mixed_in(stage):
    launch = stage.launch

    def rebuild_and_launch(*arguments, **options) -> int:
        stage.seal_input(b"other data")
        return launch(*arguments, **options)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(execute_module, "launch", rebuild_and_launch)
        with pytest.raises(
            IntegrityError, match=r"(?s)built again by another process.*run the same command again"
        ):
            stage.execute()
    assert stage.store.find("autoencoder", stage.digest) is None
    assert not stage.work.exists()
    stage.use(stage.seal_input(b"data"))
    assert not stage.execute().hit


def test_an_input_of_other_content_makes_another_artifact(stage):
    first = stage.execute()
    stage.use(stage.seal_input(b"other data"))
    again = stage.execute()
    assert not again.hit
    assert again.artifact.digest != first.artifact.digest
    stage.use(stage.seal_input(b"data"))
    assert stage.execute().artifact.digest == first.artifact.digest
    assert stage.launches == 2


def test_work_for_the_same_inputs_is_kept(stage):
    stage.returncode = 75
    with pytest.raises(Exception, match="stopped by a signal"):
        stage.execute()
    (stage.work / "checkpoints").mkdir()
    stage.returncode = 0
    stage.execute()
    assert stage.found_checkpoints == [False, True]


def test_the_time_of_a_launch_whose_parent_was_killed_counts(stage):
    """Nobody wrote its end down: it lasted until its last file."""
    seconds = stage.work / "seconds.json"
    noted, launch = [], stage.launch

    def note_and_launch(*arguments, **options) -> int:
        noted.append(seconds.read_text())
        return launch(*arguments, **options)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(execute_module, "launch", note_and_launch)
        for _ in range(2):  # killed twice, after 1000 s each
            stage.returncode = 75
            with pytest.raises(Interrupted):
                stage.execute()
            seconds.write_text(noted[-1])
            (stage.work / "checkpoint").touch()
            later = json.loads(noted[-1])["started"] + 1000
            os.utime(stage.work / "checkpoint", (later, later))
        stage.returncode = 0
        built = stage.execute()
    assert 2000 <= built.artifact.manifest.seconds < 2100


def test_a_training_moves_to_another_layout_under_the_key_it_was_begun_under(stage):
    """The need comes after it was begun, and so does the switch."""

    def at(**execution: Any) -> str:
        changed = CONFIGURATION.execution.model_copy(update=execution)
        stage.configuration = CONFIGURATION.model_copy(update={"execution": changed})
        stage.use(stage.input)
        return stage.digest

    begun = at(threads=4)
    stage.returncode = 75
    with pytest.raises(Interrupted):
        stage.execute()
    elsewhere = at(threads=3)
    moved = {"threads": 3, "data_parallel": "ddp", "allow_layout_change": True}
    assert elsewhere != begun == at(**moved)
    with pytest.raises(Interrupted):
        stage.execute()
    assert at(threads=2, allow_layout_change=True) == begun, "it may move again"
    assert at(threads=2, allow_layout_change=True, precision="bf16") not in {begun, elsewhere}
    stage.returncode = 0
    at(**moved)
    assert not stage.execute().hit
    assert at(**moved) == begun
    assert stage.execute().hit
    assert at(threads=3) == elsewhere
    assert not stage.execute().hit
    assert at(threads=3, allow_layout_change=True) == elsewhere, "its own, where there is one"
    (stage.store.path("autoencoder", begun) / MANIFEST).write_text("{")
    assert at(threads=2, allow_layout_change=True) == elsewhere, "what is damaged is not gone on with"
    assert stage.launches == 4


def test_killed_between_the_end_and_sealing(stage, monkeypatch):
    """The stage has said that all is written: it is sealed, and not run again."""

    def fail(*arguments, **options):
        raise StorageError("no space")

    with monkeypatch.context() as patched:
        patched.setattr(stage.store, "seal", fail)
        with pytest.raises(StorageError):
            stage.execute()
    assert not stage.execute().hit
    assert stage.launches == 1


def test_a_damaged_outcome_runs_the_stage_again(stage, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(stage.store, "seal", lambda *a, **o: (_ for _ in ()).throw(StorageError("x")))
        with pytest.raises(StorageError):
            stage.execute()
    for damaged in ("{", "[]", '{"summary": 3}'):
        (stage.work / "outcome.json").write_text(damaged)
        with monkeypatch.context() as patched:
            patched.setattr(stage.store, "seal", lambda *a, **o: (_ for _ in ()).throw(StorageError("x")))
            with pytest.raises(StorageError):
                stage.execute()
    assert stage.launches == 4


def test_what_sealing_left_is_not_sealed_again(stage):
    """Killed after the rename: the word of the end is still there, the files are not."""
    built = stage.execute()
    stage.work.mkdir(parents=True)
    (stage.work / "outcome.json").write_text(json.dumps({"summary": {}}))
    (built.artifact.path / "model.bin").unlink()
    stage.store = Store(stage.store.root)
    again = stage.execute()
    assert stage.launches == 2
    assert {file.path for file in again.artifact.manifest.files} == set(FILES)


def test_nothing_is_touched_while_an_earlier_launch_still_writes(stage):
    """A killed parent's lock is free at once, while its stage writes a last checkpoint.

    It was killed while it sealed: the word of the end without the files would have the directory removed.
    """
    checkpoints = stage.work / "checkpoints"
    checkpoints.mkdir(parents=True)
    (stage.work / "outcome.json").write_text(json.dumps({"summary": {}}))
    lock = (stage.work / "launch.lock").open("wb")
    fcntl.flock(lock, fcntl.LOCK_EX)
    told = threading.Event()
    stage.lines = _Telling(told)
    survived = []

    def write_last_checkpoint() -> None:
        assert told.wait(60)
        time.sleep(0.3)
        try:
            (checkpoints / "step-00000005-0.safetensors").write_bytes(b"last")
            survived.append(True)
        finally:
            lock.close()

    orphan = threading.Thread(target=write_last_checkpoint)
    orphan.start()
    built = stage.execute()
    orphan.join()
    assert survived == [True], "the work directory was removed under a process that was writing"
    assert not built.hit
    assert any("an earlier launch is ending" in line for line in stage.lines)


class _Telling(list):
    def __init__(self, event: threading.Event) -> None:
        super().__init__()
        self.event = event

    def append(self, line: str) -> None:
        super().append(line)
        if "an earlier launch" in line:
            self.event.set()


def test_an_earlier_launch_that_does_not_end(stage, monkeypatch):
    monkeypatch.setattr(execute_module, "_WAIT_SECONDS", 0.2)
    stage.work.mkdir(parents=True)
    with (stage.work / "launch.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(StorageError, match=r"earlier launch still run.*\n.*launch\.lock open"):
            stage.execute()
    assert not stage.execute().hit


def test_an_input_file_that_changes_while_it_is_read(stage, monkeypatch):
    """Its artifact would be filed under the sum of the bytes that were there before."""
    settings = dict(stage.derivation["settings"])
    stage.derive(stage.derivation | {"settings": settings | {"sha256": "of the plan"}})
    with pytest.raises(DataError, match="changed while it was read"):
        stage.execute()
    assert stage.store.find("autoencoder", stage.digest) is None
    assert not stage.store.work("autoencoder", stage.digest).exists()


def test_a_full_disk_is_refused_before_the_first_byte(stage, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 10**9, 1000))
    with pytest.raises(
        PreflightError, match=r"stage autoencoder will write about 0\.\d MB, and 0\.0 MB are free"
    ):
        stage.execute()
    assert stage.launches == 0
    assert not stage.work.exists()


def test_a_failure_on_a_full_disk_is_the_disks(stage, monkeypatch):
    """The failing process could not write down why."""
    stage.returncode = 1
    usage = [Usage(10**9, 0, 10**9), Usage(10**9, 0, 1000), Usage(10**9, 0, 10**9), Usage(10**9, 0, 10**9)]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage.pop(0))
    with pytest.raises(StorageError, match=r"stage autoencoder failed, and 0\.0 MB are free"):
        stage.execute()
    with pytest.raises((StageError, ProcessKilled)):
        stage.execute()


def test_a_reader_of_our_lines_that_goes_away_is_no_disk_error(stage):
    def gone(line: str) -> None:
        raise BrokenPipeError

    stage.lines = _Raising()
    with pytest.raises(BrokenPipeError):
        stage.execute()


class _Raising(list):
    def append(self, line: str) -> None:
        raise BrokenPipeError


@pytest.mark.slow
def test_two_processes_that_want_the_same_build_it_once(tmp_path):
    processes = [start_ups("stage", "download", TINY, "--root", tmp_path) for _ in range(2)]
    outputs = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    verdicts = sorted("cached" if "download cached" in output else "done" for output in outputs)
    assert verdicts == ["cached", "done"], outputs
    assert len(list((tmp_path / "artifacts" / "download").iterdir())) == 1
