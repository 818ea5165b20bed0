"""`ups doctor` on this machine, and `ups run --dry`: what they find, and that nothing is left."""

import json
import shutil
from pathlib import Path

import pytest
from command_line import TINY, ups

import ups as package
from ups.commands.main import main
from ups.config.schema import STAGES
from ups.pipeline.readiness import doctor


@pytest.fixture(autouse=True)
def no_server(monkeypatch, tmp_path):
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "no prefect"))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)


@pytest.fixture
def torch_report(monkeypatch):
    """What torch says takes seconds to find out."""
    report = {"cuda": None, "driver": None, "problem": "torch finds none", "devices": []}
    monkeypatch.setattr(doctor, "_torch_report", lambda: report)


def test_a_machine_that_lacks_something_is_exit_code_3(torch_report, tmp_path, capsys):
    arguments = ["doctor", str(TINY), "--root", str(tmp_path / "root"), "--json"]
    assert main(arguments) == 0
    found = {row["what"]: row["verdict"] for row in json.loads(capsys.readouterr().out)}
    assert {"python", "torch", "prefect", "fastapi", "sqlalchemy", "port 4200", "root", "device"} <= set(
        found
    )
    assert {"open files", "locked memory", "code", "disk for download", "disk for evaluate"} <= set(found)
    assert not (tmp_path / "root").exists()
    assert main([*arguments, "--set", "execution.threads=1000"]) == 3
    captured = capsys.readouterr()
    assert {row["what"]: row["verdict"] for row in json.loads(captured.out)}["device"] == "problem"
    assert "1000 threads" in captured.err
    assert "fix: set execution.threads" in captured.err
    assert main(["doctor", "--root", "/proc/nowhere"]) == 3
    assert "/proc/nowhere" in capsys.readouterr().err


@pytest.mark.slow
def test_torch_is_asked_in_a_process_of_its_own():
    assert set(doctor._torch_report()) == {"cuda", "driver", "problem", "devices"}


def test_without_a_disk_nothing_is_tried(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    root = tmp_path / "file" / "root"
    assert main(["run", str(TINY), "--dry", "--root", str(root)]) == 3
    assert "Not a directory" in capsys.readouterr().err


def test_a_dry_run_is_refused_what_the_run_would_be_refused(tmp_path, capsys):
    options = ["--root", str(tmp_path), "--rebuild", "consistency", "--until", "operator"]
    assert main(["run", str(TINY), "--dry", *options]) == 2
    assert "'consistency' is none of the stages" in capsys.readouterr().err


def test_what_a_full_disk_lacks_is_told_for_the_stage(tmp_path, capsys, monkeypatch):
    from ups.pipeline.readiness import checks

    monkeypatch.setattr(checks, "free_bytes", lambda root: 300_000)
    assert main(["run", str(TINY), "--dry", "--root", str(tmp_path)]) == 3
    error = capsys.readouterr().err
    assert "disk for autoencoder: " in error
    assert "ups cache gc --dry-run" in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_every_stage_is_tried_and_nothing_is_left(tmp_path):
    root = tmp_path / "deep" / "root"
    done = ups("run", TINY, "--dry", "--root", root, "--set", "resources.hourly_rate_usd=2")
    assert done.returncode == 0, done.stderr
    assert "every stage works" in done.stdout
    assert "USD" in done.stdout
    predicted = done.stdout[done.stdout.index("to be built") :].splitlines()[1:]
    assert [line.split()[0] for line in predicted[: len(STAGES)]] == list(STAGES)
    assert list(tmp_path.iterdir()) == []


def test_what_is_sealed_is_not_tried(finished_root):
    root, _ = finished_root
    runs = set((root / "runs").iterdir())
    done = ups("run", TINY, "--dry", "--root", root)
    assert done.returncode == 0, done.stderr
    assert "nothing is to be built" in done.stdout
    assert set((root / "runs").iterdir()) == runs


@pytest.mark.slow
def test_a_stage_that_does_not_work_is_found(tmp_path, monkeypatch):
    """One that cannot be imported. That all are tried, the last too, is said above."""
    copy = tmp_path / "library" / "ups"
    shutil.copytree(Path(package.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    with (copy / "stages" / "autoencoder.py").open("a") as file:
        file.write("\nimport a_module_that_nobody_has\n")
    monkeypatch.chdir(tmp_path / "library")  # `python -m` looks there first
    done = ups("run", TINY, "--dry", "--root", tmp_path / "root")
    assert done.returncode == 3, done.stdout + done.stderr
    assert "stage autoencoder does not work" in done.stderr
    assert "a_module_that_nobody_has" in done.stderr
    assert not (tmp_path / "root").exists()
