"""A hook is run once, whatever a run ends by, and changes nothing of what it ended with."""

import json
import logging
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import pytest
from command_line import TINY, start_ups, ups

from ups.config import load_configuration
from ups.errors import Interrupted, StageError
from ups.pipeline.finish_hooks import finish_hooks

TELL = "echo $UPS_STATE $UPS_NAME $UPS_RUN"
EACH = {f"hooks.{event}": f"{TELL} {event}" for event in ("finished", "failed", "interrupted", "always")}


def said(log_file: Path) -> list[str]:
    """What hooks printed: the log without its own lines."""
    return [line for line in log_file.read_text().splitlines() if ": exit code " not in line]


def wait_for(log_file: Path, text: str) -> None:
    gives_up_at = time.monotonic() + 60
    while not (log_file.exists() and text in log_file.read_text()):
        assert time.monotonic() < gives_up_at, f"waited in vain for {text!r} in {log_file}"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("ends_by", "state"),
    [
        (None, "finished"),
        (StageError("no"), "failed"),
        (ValueError("a mistake of ours"), "failed"),
        (Interrupted("a checkpoint is there"), "interrupted"),
        (KeyboardInterrupt(), "interrupted"),
        (BrokenPipeError(), "interrupted"),
    ],
)
def test_the_hook_of_what_happened_and_then_always(tmp_path, ends_by, state):
    run = tmp_path / "run"
    it_goes_on = nullcontext() if ends_by is None else pytest.raises(type(ends_by))
    with it_goes_on, finish_hooks(load_configuration(TINY, EACH), tmp_path) as begun:
        begun(tmp_path / "the seed before")
        begun(run)
        if ends_by is not None:
            raise ends_by
    expected = f"{state} burgers_tiny {run}"
    assert said(run / "logs" / "hooks.log") == [f"{expected} {state}", f"{expected} always"]
    assert not (tmp_path / "the seed before").exists()


def test_a_run_that_could_not_begin_has_its_hook_too(tmp_path):
    with pytest.raises(StageError), finish_hooks(load_configuration(TINY, EACH), tmp_path):
        raise StageError("no disk")
    assert said(tmp_path / "hooks.log")[0] == "failed burgers_tiny failed"


def test_hooks_have_the_credentials_that_were_taken_after_their_process_began(tmp_path, monkeypatch):
    changes = {"hooks.always": "echo $UPS_STATE $WANDB_API_KEY"}
    with finish_hooks(load_configuration(TINY, changes), tmp_path):
        monkeypatch.setenv("WANDB_API_KEY", "a\nkey")
    assert said(tmp_path / "hooks.log") == ["finished a key"], "also of a run that could not begin"


def test_a_full_disk_keeps_no_hook_from_its_work(tmp_path):
    commands = {"failed": "true", "always": f"touch {tmp_path / 'stopped'}"}
    request = {"commands": commands, "seconds": 60, "name": "a", "log": "/dev/full"}
    done = subprocess.run(
        [sys.executable, "-m", "ups.pipeline.run_hooks", json.dumps(request)],
        stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "stopped").exists()


def test_without_hooks_there_is_no_process(tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: pytest.fail("started a process"))
    with finish_hooks(load_configuration(TINY), tmp_path) as begun:
        begun(tmp_path)


@pytest.mark.parametrize(
    ("command", "how"),
    [
        (["false"], "exit code 1"),
        (["no-such-program"], "could not be started"),
        ("echo begun; sleep 600", "it took more than 0.2 s"),
    ],
)
def test_a_hook_that_fails_is_told_and_no_more(tmp_path, caplog, command, how):
    changes = {"hooks.finished": command, "hooks.timeout_seconds": 0.2, "hooks.always": TELL}
    with (
        caplog.at_level(logging.WARNING),
        finish_hooks(load_configuration(TINY, changes), tmp_path) as begun,
    ):
        begun(tmp_path)
    log_text = (tmp_path / "logs" / "hooks.log").read_text()
    assert how in log_text
    assert "finished burgers_tiny" in log_text, "the next one is run all the same"
    (warning,) = [record.getMessage() for record in caplog.records]
    assert "1 of the finish hooks failed" in warning


def test_where_no_log_can_be_written_the_hook_is_run(tmp_path):
    (tmp_path / "file").write_text("")
    changes = {"hooks.always": ["touch", str(tmp_path / "stopped")]}
    with finish_hooks(load_configuration(TINY, changes), tmp_path / "file"):
        pass
    assert (tmp_path / "stopped").exists()


PROGRAM = """
import json, sys, time
from pathlib import Path
from ups.config import load_configuration
from ups.pipeline.finish_hooks import finish_hooks
changes, root = json.loads(sys.argv[2]), Path(sys.argv[3])
with finish_hooks(load_configuration(sys.argv[1], changes), root, after_the_process=True) as begun:
    begun(root)
    if sys.argv[4] == "killed":
        print("begun", flush=True)
        time.sleep(600)
print("begun", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize(("where", "state"), [("killed", "failed"), ("behind the block", "finished")])
def test_it_is_run_behind_a_process_that_was_killed_and_not_before(tmp_path, where, state):
    command = [sys.executable, "-c", PROGRAM, str(TINY), json.dumps(EACH), str(tmp_path), where]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.2)
        assert not (tmp_path / "logs").exists(), "the process has not ended"
        process.kill()
    wait_for(tmp_path / "logs" / "hooks.log", " always\n")
    assert said(tmp_path / "logs" / "hooks.log")[0] == f"{state} burgers_tiny {tmp_path} {state}"


@pytest.mark.slow
def test_several_seeds_have_their_hook_once_and_a_killed_command_has_it(tmp_path):
    ran = tmp_path / "ran"
    options = [
        *("run", TINY, "--root", tmp_path, "--set", "tracking.wandb=disabled"),
        *("--set", f"hooks.always=echo $UPS_STATE $UPS_RUN >> {ran}", "--set", "seeds=2"),
    ]
    done = ups(*options, "--until", "download")
    assert done.returncode == 0, done.stderr
    assert ran.read_text().split() == ["finished", str(max((tmp_path / "runs").iterdir()))]
    ran.unlink()
    longer = [*options, "--set", "training.autoencoder.steps=100000"]
    killed = start_ups(*longer)
    trained = tmp_path / "artifacts" / ".work" / "autoencoder"
    gives_up_at = time.monotonic() + 120
    while not list(trained.glob("*/checkpoints/step-*")):
        assert time.monotonic() < gives_up_at, "waited for a checkpoint"
        time.sleep(0.1)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    wait_for(ran, "\n")
    assert ran.read_text().split() == ["failed", str(max((tmp_path / "runs").iterdir()))]
