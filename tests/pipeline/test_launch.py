"""A launch streams its lines, obeys its limits, and its end is told by files."""

import fcntl
import json
import os
import signal
import time
from pathlib import Path

import pytest

from ups import errors
from ups.config.schema import STAGES, TRAINING_STAGES
from ups.pipeline.environment import threading_environment
from ups.pipeline.supervise import launch as launch_module
from ups.pipeline.supervise.launch import launch
from ups.pipeline.supervise.outcome import classify
from ups.pipeline.tool_process import run_tool

PROGRAMS = Path(__file__).parent / "programs"


def run(
    work: Path, behaviour: str, *arguments: str, processes: int | None = None, on_line=print, **options
) -> int:
    environment = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROGRAMS), **options.pop("environment", {})}
    return launch(
        "stage",
        [behaviour, str(work), *arguments],
        work=work,
        processes=processes,
        log_file=work / "log.txt",
        on_line=on_line,
        environment=environment,
        **options,
    )


def test_lines_come_in_order_and_are_added_to_the_log(tmp_path):
    (tmp_path / "log.txt").write_text("of an earlier launch\n")
    lines: list[str] = []
    assert run(tmp_path, "print", on_line=lines.append) == 0
    assert lines == ["first", "to standard error", "100 %", "grüße", "no line end"]
    log = (tmp_path / "log.txt").read_text()
    assert log.startswith("of an earlier launch\nfirst\nto standard error\n")
    assert log.endswith("grüße\nno line end")
    classify(0, tmp_path)


def test_lines_come_while_the_stage_runs(tmp_path):
    class Seen(Exception):
        pass

    def stop_at_first(line: str) -> None:
        raise Seen(line)

    # The stage prints one line and then runs until it is told to end: only a line that came early,
    # and a raising `on_line` that ended the stage, let this return.
    with pytest.raises(Seen, match="rank 0 is ready"):
        run(tmp_path, "checkpoint", on_line=stop_at_first)
    assert (tmp_path / "interrupted.json").exists()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "ready-0").read_text()), 0)


def test_the_environment_is_added_to_the_parents(tmp_path, monkeypatch):
    monkeypatch.setenv("MARKER", "inherited")
    lines: list[str] = []
    run(tmp_path, "environment", on_line=lines.append, environment={"OMP_NUM_THREADS": "3"})
    assert lines == ["3 inherited"]


def test_a_tool_has_the_environment_of_a_stage(tmp_path, monkeypatch):
    """A benchmark measures what a training does, and a score on a GPU repeats itself."""
    (tmp_path / "tool.py").write_text(
        "import json, os, pathlib, sys\n"
        "outcome = pathlib.Path(sys.argv[2], 'outcome.json')\n"
        "outcome.write_text(json.dumps({'summary': dict(os.environ)}))\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{Path(__file__).parents[2]}:{tmp_path}")
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    found = run_tool("tool", {}, place=tmp_path, threads=3, on_line=print)
    expected = {"OMP_NUM_THREADS": "3", "GOMP_SPINCOUNT": "10000", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    assert expected.items() <= found.items()
    assert threading_environment(3) == expected


@pytest.mark.slow
def test_the_deadline_ends_the_stage_in_order(tmp_path):
    returncode = run(tmp_path, "checkpoint", deadline_seconds=2.0)
    assert returncode == 75
    with pytest.raises(errors.Interrupted):
        classify(returncode, tmp_path)


def test_a_stage_that_stops_by_itself_is_interrupted(tmp_path):
    returncode = run(tmp_path, "stop")
    assert returncode == 75
    with pytest.raises(errors.Interrupted, match="step 7"):
        classify(returncode, tmp_path)


@pytest.mark.parametrize(
    ("arguments", "kind", "text"),
    [
        (("exit", "1"), errors.StageError, "SystemExit: 1"),
        (("exit", "2"), errors.ConfigurationError, "exit code 2"),
        (("data-error",), errors.DataError, r"burgers.hdf5: no dataset 'tensor'\n  fix: download it again$"),
        (("value-error",), errors.StageError, "(?s)ValueError: a wrong value.*Traceback.*stage.py"),
        (("die", str(int(signal.SIGSEGV))), errors.StageError, "stage by SIGSEGV"),
        (("die", str(int(signal.SIGKILL))), errors.ProcessKilled, "stage by SIGKILL"),
    ],
)
def test_a_plain_process_that_fails(tmp_path, arguments, kind, text):
    returncode = run(tmp_path, *arguments)
    assert returncode == 1
    with pytest.raises(kind, match=text) as caught:
        classify(returncode, tmp_path)
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    ("arguments", "processes", "lines", "in_the_log"),
    [
        (("value-error",), None, [], ["Traceback", "ValueError: a wrong value"]),
        pytest.param(
            ("die", "9"),
            1,
            [],
            ["torch/distributed", "(SIGKILL)"],
            marks=pytest.mark.slow,
            id="a killed rank",
        ),
        pytest.param(
            ("data-error",),
            1,
            [],
            ["Root Cause", "no dataset"],
            marks=pytest.mark.slow,
            id="our error in a rank",
        ),
    ],
)
def test_tracebacks_and_what_torchrun_says_are_in_the_log_alone(
    tmp_path, arguments, processes, lines, in_the_log
):
    """What a user is told is the error that `classify` raises."""
    told: list[str] = []
    run(tmp_path, *arguments, processes=processes, on_line=told.append)
    assert told == lines
    log = (tmp_path / "log.txt").read_text()
    assert all(words in log for words in in_the_log), log


def test_a_module_that_does_not_exist_is_a_failure_and_not_a_killed_process(tmp_path):
    returncode = launch(
        "ups.no_such_stage", [], work=tmp_path, processes=None, log_file=tmp_path / "log.txt", on_line=print
    )
    with pytest.raises(errors.StageError, match="no_such_stage"):
        classify(returncode, tmp_path)


@pytest.mark.slow
def test_an_exception_in_one_rank_names_the_rank_and_carries_its_traceback(tmp_path):
    # rank 0 is told by torchrun to end and writes a checkpoint: that came later and is not the cause
    returncode = run(tmp_path, "value-error", processes=2)
    assert returncode != 0
    with pytest.raises(errors.StageError, match=r"(?s)rank 1: ValueError: a wrong value.*stage\.py"):
        classify(returncode, tmp_path)


def test_the_files_of_an_earlier_launch_do_not_speak_for_this_one(tmp_path):
    assert run(tmp_path, "value-error") == 1
    (tmp_path / "interrupted.json").write_text('{"step": 3}')
    assert run(tmp_path, "print") == 0
    assert not (tmp_path / "error.json").exists()
    assert not (tmp_path / "interrupted.json").exists()


def test_a_launch_waits_for_the_processes_of_an_earlier_one(tmp_path, monkeypatch):
    monkeypatch.setattr(launch_module, "_LAUNCHER_MARGIN_SECONDS", 0.1)
    with (tmp_path / "launch.lock").open("ab") as input_of_an_earlier_process:
        fcntl.flock(input_of_an_earlier_process, fcntl.LOCK_EX)
        with pytest.raises(errors.StageError, match="earlier launch"):
            run(tmp_path, "print", grace_seconds=0.1)
    monkeypatch.undo()
    assert run(tmp_path, "print") == 0


# --- the verdict alone ----------------------------------------------------------------------------

CHECKPOINTING = "execution.activation_checkpointing"
LOST_PEER = "RuntimeError: [pair.cc:553] Connection closed by peer [127.0.0.1]:14497"


def write_error(file: Path, message: str, *, age_seconds: float = 0.0, **fields: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    extra = {"py_callstack": "Traceback: here", "timestamp": "1"}
    file.write_text(json.dumps({"message": {"message": message, "extraInfo": extra}, **fields}))
    written = time.time() - age_seconds
    os.utime(file, (written, written))


def rank_file(work: Path, rank: int) -> Path:
    return work / "ranks" / "launch_x" / "attempt_0" / str(rank) / "error.json"


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("NotFiniteError: the loss is nan at step 3", errors.NotFiniteError),
        ("IntegrityError: shard 3 differs", errors.IntegrityError),
        ("MemoryError: ", errors.OutOfMemoryError),
        ("OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", errors.OutOfMemoryError),
        ("RuntimeError: DefaultCPUAllocator: can't allocate memory: you tried", errors.OutOfMemoryError),
        ("OSError: [Errno 28] No space left on device", errors.DiskFullError),
        ("OSError: [Errno 5] Input/output error: 'x'", errors.StorageError),
        ("OSError: [Errno 13] Permission denied", errors.StageError),
        (LOST_PEER, errors.ProcessKilled),
        ("ValueError: Connection closed by peer is only a text here", errors.StageError),
    ],
)
def test_the_error_file_is_mapped_to_a_typed_error(tmp_path, message, kind):
    write_error(tmp_path / "error.json", message)
    with pytest.raises(errors.UpsError) as caught:
        classify(1, tmp_path)
    assert type(caught.value) is kind


@pytest.mark.parametrize("kind", [errors.OutOfMemoryError, errors.ProcessKilled])
@pytest.mark.parametrize(
    ("stage", "keys"),
    [
        *(
            (name, [f"training.{name}.batch_size", f"training.{name}.accumulation", CHECKPOINTING])
            for name in TRAINING_STAGES
        ),
        ("evaluate", ["evaluation.batch_size"]),
        ("download", ["a machine with more memory"]),
    ],
)
def test_exhausted_memory_names_the_settings_to_change(tmp_path, stage, keys, kind):
    """The kernel kills without a word."""
    if kind is errors.OutOfMemoryError:
        write_error(rank_file(tmp_path, 0), "OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB")
    with pytest.raises(kind) as caught:
        classify(1, tmp_path, stage=stage)
    _, _, fix = str(caught.value).partition("fix: ")
    for key in keys:
        assert key in fix
        section, _, field = key.rpartition(".")
        if section == f"training.{stage}":
            assert field in STAGES[stage].section[1].model_fields
    assert (CHECKPOINTING in fix) == (stage in TRAINING_STAGES)


def test_no_file_at_all_means_killed(tmp_path):
    with pytest.raises(errors.ProcessKilled, match="resumes"):
        classify(1, tmp_path)


def test_a_file_that_was_cut_off_means_killed(tmp_path):
    (tmp_path / "error.json").write_text('{"message": {"mess')
    with pytest.raises(errors.ProcessKilled):
        classify(1, tmp_path)


def test_success_needs_the_outcome_file(tmp_path):
    with pytest.raises(errors.StageError, match=r"outcome\.json"):
        classify(0, tmp_path)


def test_a_signal_without_a_checkpoint_is_still_an_interruption(tmp_path):
    write_error(tmp_path / "error.json", "SignalException: Process 7 got signal: 15")
    with pytest.raises(errors.Interrupted, match="before this launch wrote a checkpoint"):
        classify(75, tmp_path)


def test_the_cause_is_not_the_rank_that_lost_its_peer(tmp_path):
    write_error(tmp_path / "error.json", LOST_PEER)
    write_error(rank_file(tmp_path, 0), LOST_PEER, age_seconds=1.0)
    write_error(rank_file(tmp_path, 1), "ValueError: a wrong value")
    with pytest.raises(errors.StageError, match="rank 1: ValueError"):
        classify(1, tmp_path)


@pytest.mark.parametrize(("age_seconds", "kind"), [(5.0, errors.StageError), (-5.0, errors.Interrupted)])
def test_what_was_written_first_is_the_cause(tmp_path, age_seconds, kind):
    (tmp_path / "interrupted.json").write_text('{"step": 12}')
    write_error(rank_file(tmp_path, 0), "ValueError: a wrong value", age_seconds=age_seconds)
    with pytest.raises(errors.UpsError) as caught:
        classify(75, tmp_path)
    assert type(caught.value) is kind


def test_only_what_may_pass_by_itself_is_worth_a_retry():
    kinds = {
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.UpsError)
    }
    assert {kind for kind in kinds if kind.retryable} == {
        errors.StorageError,
        errors.Interrupted,
        errors.ProcessKilled,
    }
