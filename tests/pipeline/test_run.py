"""A run's directory, and what a started run holds on to."""

import json
import shlex
import shutil
import threading
from pathlib import Path

import pytest
from command_line import TINY
from sealing import sealed

from ups.artifacts import Store
from ups.artifacts.collection import collect
from ups.artifacts.store import BusyError
from ups.config import load_configuration
from ups.config.load import parse_overrides
from ups.errors import IntegrityError, StorageError
from ups.pipeline import run as run_module
from ups.pipeline.plan import make_plan
from ups.pipeline.run import Run, overrides_by_seed

OFF = {"tracking.wandb": "disabled", "execution.device": "cpu"}


STAGES, SPLITS, FIGURES = 7, 3, 1


def removable(root: Path) -> int:
    return sum(removal.kept is None for removal in collect(Store(root), dry_run=True))


@pytest.mark.parametrize("linked", [False, True])
def test_a_started_run_keeps_what_it_plans_to_use(linked, finished_root, tmp_path):
    """Long before it points to anything; and then what it points to, also from a runs/ that lies elsewhere."""
    root = tmp_path / "root"
    shutil.copytree(finished_root[0], root)
    shutil.rmtree(root / "runs")
    if linked:
        (tmp_path / "another" / "disk" / "runs").mkdir(parents=True)
        (root / "runs").symlink_to(tmp_path / "another" / "disk" / "runs")
    assert removable(root) == STAGES + SPLITS + FIGURES
    run = Run.start(TINY, OFF, root=root)
    assert removable(root) == FIGURES
    assert run.adopt("download") is not None
    run.close()
    assert removable(root) == STAGES - 1 + FIGURES, "the run points to its download"


def test_a_run_that_cannot_start_holds_nothing(finished_root, tmp_path, monkeypatch):
    root = tmp_path / "root"
    shutil.copytree(finished_root[0], root)
    shutil.rmtree(root / "runs")

    def fail() -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_module, "environment", fail)
    with pytest.raises(StorageError, match="No space left on device"):
        Run.start(TINY, OFF, root=root)
    assert removable(root) == STAGES + SPLITS + FIGURES


@pytest.mark.slow
def test_starting_at_the_same_time_gives_different_directories(tmp_path):
    runs = []
    threads = [
        threading.Thread(target=lambda: runs.append(Run.start(TINY, OFF, root=tmp_path))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({run.directory for run in runs}) == 3
    for run in runs:
        run.close()
        assert (run.directory / "logs").is_dir()


def test_a_stage_that_is_tried_again_is_recorded_once(finished_root, tmp_path):
    root = tmp_path / "root"
    shutil.copytree(finished_root[0], root)
    run = Run.start(TINY, OFF, root=root, until="autoencoder")
    for _ in range(2):
        for name in ("download", "autoencoder"):
            run.adopt(name)
    run.close()
    told = (run.directory / "metrics.jsonl").read_text().splitlines()
    sealed = (run.built["autoencoder"].artifact.path / "logs" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in told] == [
        {"stage": "autoencoder"} | json.loads(line) for line in sealed
    ]


def test_what_is_not_sealed_is_not_adopted(tmp_path):
    run = Run.start(TINY, OFF, root=tmp_path)
    assert run.adopt("download") is None
    assert run.built == {}
    run.close()


def test_the_plan_of_a_run_is_that_of_its_configuration(finished_root):
    """The resolved file in the run's directory leads to the same digests, on this machine or another."""
    root, run = finished_root
    plan = make_plan(load_configuration(run / "config.yaml"), Store(root))
    planned = {row["stage"]: row["digest"] for row in json.loads((run / "plan.json").read_text())}
    assert {stage.name: stage.digest for stage in plan} == planned
    assert {stage.verdict for stage in plan} == {"HIT"}


def test_the_command_in_the_runs_directory_asks_for_the_same(tmp_path):
    overrides = OFF | {"training.operator.joint": None, "seed": 3}
    run = Run.start(TINY, overrides, root=tmp_path, until="download")
    run.close()
    words = shlex.split(json.loads((run.directory / "env.json").read_text())["command"])
    assert (words[:3], words[-2:]) == (["ups", "run", str(TINY)], ["--until", "download"])
    again = load_configuration(TINY, parse_overrides(words[4:-2:2]))
    assert again == load_configuration(TINY, overrides)


def test_seeds_are_runs_that_differ_in_their_seed_alone():
    assert overrides_by_seed(TINY, {"seed": 5, "seeds": 3, "execution.threads": 1}) == [
        {"seed": seed, "seeds": 1, "execution.threads": 1} for seed in (5, 6, 7)
    ]
    assert overrides_by_seed(TINY, None) == [{}]


def test_what_a_run_reads_or_holds_is_kept_from_gc_until_it_is_closed(tmp_path):
    store = Store(tmp_path)
    artifacts = [sealed(store, stage) for stage in ("autoencoder", "operator")]
    pointers = [
        {"stage": one.stage, "digest": one.digest, "content": one.manifest.content, "path": str(one.path)}
        for one in artifacts
    ]
    run = Run.start(TINY, OFF, root=tmp_path)
    run.close()

    def in_use() -> list[str]:
        found = []
        for artifact in artifacts:
            try:
                with store.exclusive(artifact.stage, artifact.digest):
                    pass
            except BusyError:
                found.append(artifact.stage)
        return found

    again = Run.of(run.settings, pointers[:1])
    assert in_use() == ["autoencoder"]
    again.hold(pointers[1])
    assert in_use() == ["autoencoder", "operator"]
    again.close()
    assert in_use() == []
    with pytest.raises(IntegrityError, match="or is gone") as failed:
        Run.of(run.settings, [pointers[0], pointers[1] | {"content": "other"}])
    assert in_use() == [], failed  # which keeps the run alive


def test_a_torn_record_is_cut_off_by_whoever_goes_on(finished_root, tmp_path):
    """What a full disk or a killed process left of a line: the retried run would glue its first record to it."""
    root = tmp_path / "root"
    shutil.copytree(finished_root[0], root)
    run = Run.start(TINY, OFF, root=root)
    pointers = []
    for name in ("download", "autoencoder"):
        assert run.adopt(name) is not None
        pointers.append(run.pointer(name))
    run.close()
    records = run.directory / "metrics.jsonl"
    whole = records.read_text()
    assert whole.count("\n") > 2
    records.write_text(whole[:-20])
    again = Run.of(run.settings, pointers[:1])
    assert again.adopt("autoencoder") is not None
    assert sorted(records.read_text().splitlines()) == sorted(whole.splitlines())
