"""W&B mirrors a run under the promised names, and a mirror that fails or hangs is not felt."""

import fcntl
import json
import logging
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import TINY, clean_environment

from ups.commands.main import main
from ups.config.schema import Tracking
from ups.pipeline import mirror as mirror_module
from ups.pipeline.mirror import Mirror, is_sent
from ups.pipeline.run import LOCK, Run, run_all
from ups.pipeline.run_record import is_running
from ups.tracking import _identity

OFFLINE = {"wandb": "offline", "project": "ups", "entity": None}


def make_run(directory: Path, records: list[dict], *, table: list[dict] | None = None) -> Path:
    (directory / "logs").mkdir(parents=True)
    (directory / "config.yaml").write_text(yaml.safe_dump({"name": "x", "tracking": OFFLINE}))
    (directory / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    note(directory)
    if table is not None:
        (directory / "metrics.json").write_text(json.dumps(table))
    return directory


def note(run: Path, *, data: str = "d", **environment: Any) -> None:
    """What the mirror reads of how a run was made."""
    (run / "env.json").write_text(json.dumps({"code": "c", "rebuild": None} | environment))
    (run / "plan.json").write_text(json.dumps([{"stage": "download", "digest": data}]))


def mirror(run: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "ups.tracking", run], env=clean_environment(), check=True, input=b""
    )


def stored_records(run: Path) -> Iterator:
    """Protocol buffers of the offline file: LevelDB's log format after a header of 7 bytes."""
    records = pytest.importorskip("wandb.proto.wandb_internal_pb2", reason="wandb is not installed")
    (file,) = run.glob("wandb/offline-run-*/*.wandb")
    data = file.read_bytes()
    offset, parts = 7, b""
    while offset + 7 <= len(data):
        left_in_block = 32768 - offset % 32768
        if left_in_block < 7:
            offset += left_in_block
            continue
        _, length, kind = struct.unpack("<IHB", data[offset : offset + 7])
        parts += data[offset + 7 : offset + 7 + length]
        offset += 7 + length
        if kind in {1, 4}:  # a whole record, or the last part of one
            record = records.Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


def read_offline(run: Path) -> tuple[list[dict], dict[str, str], dict]:
    """History, the step of each group of names, and the summary."""
    history, steps, summary = [], {}, {}

    def values(items) -> dict:
        named = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
        return {name: value for name, value in named.items() if not name.startswith("_")}

    for record in stored_records(run):
        match record.WhichOneof("record_type"):
            case "history":
                history.append(values(record.history.item))
            case "metric":
                steps[record.metric.glob_name] = record.metric.step_metric
            case "summary":
                summary |= values(record.summary.update)
    return history, steps, summary


def test_names_and_values_of_a_finished_run(finished_root, tmp_path):
    pytest.importorskip("wandb", reason="wandb is not installed")
    run = tmp_path / finished_root[1].name
    shutil.copytree(finished_root[1], run)
    configuration = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump(configuration | {"tracking": OFFLINE}))
    mirror(run)
    history, steps, summary = read_offline(run)

    written = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    bookkeeping = {"stage", "step", "steps"}
    assert history == [
        {
            f"training/{record['stage']}/{key}": value
            for key, value in record.items()
            if key not in bookkeeping
        }
        | {f"training/{record['stage']}/step": record["step"]}
        for record in written
    ]
    names = {name for row in history for name in row}
    assert names >= {
        "training/autoencoder/loss", "training/operator/loss", "training/operator/L_forward",
        "training/operator/L_rollout", "training/diffusion/loss",
        "training/consistency/loss", "training/operator/learning_rate",
    }  # fmt: skip
    assert not any("L_inv" in name for name in names), "inverse losses are not enabled"
    trainings = ("autoencoder", "operator", "diffusion", "consistency")
    assert steps == {f"training/{stage}/*": f"training/{stage}/step" for stage in trainings}
    results = {
        f"evaluation/{r['problem']}/{r['model']}/{r['metric']}": r["value"]
        for r in json.loads((run / "metrics.json").read_text())
    }
    assert "evaluation/burgers1d/operator/trajectory_relative_l2" in results
    assert {name: summary.get(name) for name in results} == results


STUB = """
import json, os, sys, time
out = open(os.environ["STUB_OUT"], "a", buffering=1) if __name__ != "__main__" else None
class Artifact:
    def __init__(self, name, kind, metadata=None): self.name, self.files = name, []
    def add_file(self, file, policy=None): self.files.append(file)
class Run:
    summary = {}
    def log_artifact(self, a): out.write(" ".join(["artifact", a.name, *a.files]) + "\\n")
    def define_metric(self, *a, **k): pass
    def log(self, values): out.write(json.dumps(values) + "\\n")
    def finish(self, exit_code):
        if self.summary: out.write(json.dumps(self.summary) + "\\n")
        out.write("failed\\n" if exit_code else "finished\\n")
def Settings(**k): return k
def init(**k):
    %s
    return Run()
"""


@pytest.fixture
def stub(tmp_path, monkeypatch):
    """Put a program in the place of W&B; returns where it writes."""

    def install(behaviour: str = "pass") -> Path:
        (tmp_path / "stub").mkdir()
        (tmp_path / "stub" / "wandb.py").write_text(STUB % behaviour)
        paths = [str(tmp_path / "stub"), *filter(None, [os.environ.get("PYTHONPATH")])]
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
        monkeypatch.setenv("STUB_OUT", str(tmp_path / "stub.out"))
        return tmp_path / "stub.out"

    return install


def wait_for(condition, what: str) -> None:
    gives_up_at = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < gives_up_at, f"waited in vain for {what}"
        time.sleep(0.02)


def wandb_record(run: Path) -> Any:
    """What the offline file says of the run itself."""
    return next(r.run for r in stored_records(run) if r.WhichOneof("record_type") == "run")


@pytest.mark.slow
def test_group_tags_and_an_identity_that_repetitions_share(tmp_path):
    pytest.importorskip("wandb", reason="wandb is not installed")
    records = [{"stage": "operator", "step": 1, "steps": 2, "loss": 0.5}]
    found = []
    for root, name, tracking in (
        ("a", "first", {}),
        ("a", "again", {"group": "sweep 1", "tags": ["small", "cpu"]}),
        ("b", "elsewhere", {}),
    ):
        run = make_run(tmp_path / root / "runs" / name, records)
        configuration = {"name": "x", "seed": 3, "tracking": OFFLINE | tracking}
        (run / "config.yaml").write_text(yaml.safe_dump(configuration))
        mirror(run)
        found.append(wandb_record(run))
    first, again, elsewhere = found
    assert (first.run_group, list(first.tags)) == ("x", [])
    assert (again.run_group, list(again.tags)) == ("sweep 1", ["small", "cpu"])
    assert first.run_id == again.run_id
    assert first.run_id != elsewhere.run_id


def test_what_was_made_by_other_code_of_other_data_or_again_is_another_run_of_wandb(tmp_path):
    """Else W&B would have no row of it up to the last step that it has of the earlier one."""

    def identity(**how: Any) -> str:
        note(run, **how)
        return _identity(run, yaml.safe_load((run / "config.yaml").read_text()))

    run = make_run(tmp_path / "runs" / "run", [])
    again = {"stages": ["operator"], "asked": "2026-01-01T00:00:00+00:00"}
    later = again | {"asked": "2026-01-02T00:00:00+00:00"}
    hows = [{}, {"code": "edited"}, {"data": "other"}, {"rebuild": again}, {"rebuild": later}]
    assert len({identity(**how) for how in hows}) == len(hows)
    assert identity(rebuild=again, commit="another") == identity(rebuild=again)
    assert _identity(run, {"seed": 1, "hooks": {}, "gates": {}}) == _identity(run, {"seed": 1})
    (run / "env.json").write_text("{}")  # of an earlier version
    assert _identity(run, {})


def test_a_run_notes_what_its_rows_depend_on(tmp_path, monkeypatch):
    def noted(**options: Any) -> dict[str, Any]:
        run = Run.start(TINY, {"tracking.wandb": "disabled"}, root=tmp_path, **options)
        run.close()
        return json.loads((run.directory / "env.json").read_text())

    first, again = noted(), noted(until="operator", rebuild=["operator"])
    assert first["rebuild"] is None
    assert again["rebuild"]["stages"] == ["operator"]
    assert first["code"] == again["code"]
    monkeypatch.setattr("ups.pipeline.run.code_identity", lambda *modules: {"modules": {"edited": "x"}})
    assert noted()["code"] != first["code"]


@pytest.mark.parametrize(
    ("upload", "kept"),
    [
        ([], []),
        (["report"], ["run-report report.html"]),
        (["report", "models"], ["run-report report.html", "run-operator model.safetensors"]),
    ],
)
def test_report_and_models_are_kept_when_asked_for(tmp_path, stub, upload, kept):
    out = stub()
    run = make_run(tmp_path / "run", [], table=[])
    (run / "config.yaml").write_text(yaml.safe_dump({"name": "x", "tracking": OFFLINE | {"upload": upload}}))
    (run / "report.html").touch()
    for stage, file in (("operator", "model.safetensors"), ("evaluate", "curves.json")):
        (tmp_path / stage).mkdir()
        (tmp_path / stage / file).touch()
    pointers = {stage: {"path": f"../{stage}", "digest": "d"} for stage in ("operator", "evaluate")}
    (run / "artifacts.json").write_text(json.dumps(pointers))
    mirror(run)
    lines = [line.split() for line in out.read_text().splitlines() if line.startswith("artifact ")]
    assert [f"{name} {Path(file).name}" for _, name, file in lines] == kept


def test_what_an_earlier_attempt_has_sent_is_not_sent_again(tmp_path, stub):
    out = stub("Run.summary = {'training/operator/step': 2}")
    records = [{"stage": "operator", "step": step, "steps": 3, "loss": 0.5} for step in (1, 2, 3)]
    mirror(make_run(tmp_path / "run", records))
    assert [json.loads(line)["training/operator/step"] for line in out.read_text().splitlines()[:2]] == [2, 3]


SYNC = """
import os, pathlib, sys
if __name__ == "__main__":
    print("syncing", file=sys.stderr)
    %s
    [file] = pathlib.Path(sys.argv[3]).glob("*.wandb")
    file.with_suffix(".wandb.synced").touch()
    open(os.environ["STUB_OUT"], "a").write(f"synced {sys.argv[1:3]}\\n")
"""


@pytest.fixture
def offline_file(stub):
    """W&B's stand-in that writes a file when it is offline, and sends it when it is asked to; returns where it tells."""

    def install(sending: str = "pass") -> Path:
        out = stub(
            "d = __import__('pathlib').Path(k['dir']) / 'wandb' / f'offline-run-x-{k[\"id\"]}';"
            "assert k['mode'] == 'offline'; d.mkdir(parents=True); (d / f'run-{k[\"id\"]}.wandb').touch()"
        )
        module = out.parent / "stub" / "wandb.py"
        module.write_text(module.read_text() + SYNC % sending)
        return out

    return install


def test_sync_sends_all_rows_once_and_again_when_there_are_more(tmp_path, offline_file, capsys):
    out = offline_file()
    record = {"stage": "operator", "step": 1, "steps": 2, "loss": 0.5}
    runs = [make_run(tmp_path / "runs" / name, [record]) for name in ("one", "two", "untracked")]
    for run in runs[:2]:
        (run / "wandb" / "offline-run-of-a-mirror-that-was-killed").mkdir(parents=True)
    assert main(["sync", "--root", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "one: sent\ntwo: sent\n"
    assert out.read_text().count("synced ['sync', '--yes']") == 2
    assert out.read_text().count('"training/operator/step": 1') == 2

    assert main(["sync", "--root", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "one: sent before\ntwo: sent before\n"
    with (runs[0] / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(record | {"step": 2}) + "\n")
    assert main(["sync", "one", "untracked", "--root", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "one: sent\nuntracked: sent\n"


def test_sync_leaves_a_run_that_goes_on_to_its_mirror(tmp_path, offline_file, capsys):
    offline_file()
    run = make_run(tmp_path / "runs" / "one", [{"stage": "operator", "step": 1, "steps": 2}])
    written = run / "wandb" / "offline-run-of-its-mirror"
    written.mkdir(parents=True)
    with (run / LOCK).open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert main(["sync", "--root", str(tmp_path)]) == 0
    assert "one: skipped, it goes on" in capsys.readouterr().out
    assert written.is_dir()
    assert main(["sync", "--root", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "one: sent\n"


def test_a_run_goes_on_until_its_mirror_has_ended(tmp_path, monkeypatch):
    run = Run.start(TINY, {"tracking.wandb": "disabled"}, root=tmp_path)
    found = []
    monkeypatch.setattr(run._mirror, "close", lambda *, finished: found.append(is_running(run.directory)))
    run.close()
    assert [*found, is_running(run.directory)] == [True, False]


@pytest.mark.parametrize(
    ("sending", "code", "told"),
    [
        (
            "sys.exit('Error: No API key configured. Use `wandb login` to log in.')",
            3,
            "fix: set WANDB_API_KEY",
        ),
        ("sys.exit('Error: 503')", 4, "could not be sent: Error: 503"),
        ("sys.exit(0)", 4, "did not say that it has all of it"),
    ],
)
def test_what_cannot_be_sent_is_said(tmp_path, offline_file, capsys, sending, code, told):
    offline_file(sending)
    run = make_run(tmp_path / "runs" / "one", [{"stage": "operator", "step": 1, "steps": 2}])
    assert main(["sync", str(run)]) == code
    assert told in capsys.readouterr().err
    assert main(["sync", str(tmp_path)]) == 2
    assert "it has no metrics.jsonl" in capsys.readouterr().err


@pytest.mark.slow
def test_a_server_that_never_answers_holds_up_nothing_and_no_row_is_lost(tmp_path, monkeypatch, caplog):
    """It takes connections and says nothing; rows go on being written, and what is sent later has all of them."""
    pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setattr(mirror_module, "_LAST_RECORDS_SECONDS", 0.5)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        run = make_run(tmp_path / "root" / "runs" / "run", [])
        tracking = OFFLINE | {"wandb": "online"}
        (run / "config.yaml").write_text(yaml.safe_dump({"name": "x", "tracking": tracking}))
        following = Mirror(run, Tracking.model_validate(tracking))
        following.start()
        silent.accept()  # the mirror has come, and waits
        with (run / "metrics.jsonl").open("a") as file:
            for step in range(1, 101):
                file.write(
                    json.dumps({"stage": "operator", "step": step, "steps": 100, "loss": 1 / step}) + "\n"
                )
        following.close(finished=True)
    (warning,) = [record.getMessage() for record in caplog.records]
    assert f"`ups sync {run}` sends it" in warning
    assert not is_sent(run)
    done = subprocess.run([sys.executable, "-m", "ups.tracking", run, "--offline"], check=True, input=b"")
    assert done.returncode == 0
    history, *_ = read_offline(run)
    assert [row["training/operator/step"] for row in history] == list(range(1, 101))


def test_only_terms_that_are_there_and_no_torn_line(tmp_path, stub):
    out = stub()
    record = {"stage": "operator", "step": 1, "steps": 2, "loss": 0.5, "L_forward": 0.25}
    run = make_run(tmp_path / "run", [record])
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "operator", "st')
    mirror(run)
    assert out.read_text().splitlines() == [
        json.dumps(
            {"training/operator/loss": 0.5, "training/operator/L_forward": 0.25, "training/operator/step": 1}
        ),
        "finished",
    ]


@pytest.mark.parametrize("finished", [True, False])
def test_records_are_followed_while_they_are_written(tmp_path, stub, caplog, finished):
    out = stub()
    run = make_run(tmp_path / "run", [{"stage": "operator", "step": 1, "steps": 2, "loss": 0.5}])
    following = Mirror(run, Tracking(wandb="offline"))
    following.start()
    following.start()
    wait_for(lambda: out.exists() and '"training/operator/step": 1}' in out.read_text(), "the first record")
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "operator", "step": 2, "steps": 2, "loss": 0.25}\n')
    following.close(finished=finished)
    lines = out.read_text().splitlines()
    assert [line for line in lines if "step" in line] == [
        '{"training/operator/loss": 0.5, "training/operator/step": 1}',
        '{"training/operator/loss": 0.25, "training/operator/step": 2}',
    ]
    assert lines[-1] == ("finished" if finished else "failed")
    assert not caplog.records


def test_disabled_means_no_process(tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: pytest.fail("started a process"))
    quiet = Mirror(make_run(tmp_path / "run", []), Tracking(wandb="disabled"))
    quiet.start()
    quiet.close(finished=True)


def test_a_mirror_that_cannot_be_started_is_a_warning(tmp_path, caplog):
    broken = Mirror(tmp_path / "no directory", Tracking(wandb="offline"))
    broken.start()
    broken.start()
    broken.close(finished=True)
    (warning,) = [record.getMessage() for record in caplog.records]
    assert "W&B mirror could not be started" in warning
    assert "ups sync" in warning


def test_a_hanging_mirror_and_what_it_started_end_with_the_run(tmp_path, stub, caplog, monkeypatch):
    monkeypatch.setattr(mirror_module, "_LAST_RECORDS_SECONDS", 0.3)
    out = stub(
        "import subprocess; child = subprocess.Popen(['sleep', '600']);"
        "out.write(f'{os.getpid()} {child.pid}\\n'); time.sleep(600)"
    )
    run = make_run(tmp_path / "run", [{"stage": "operator", "step": 1, "steps": 2}])
    hanging = Mirror(run, Tracking(wandb="offline"))
    hanging.start()
    wait_for(lambda: out.exists() and out.read_text().endswith("\n"), "the stub to hang")
    hanging.close(finished=True)
    (warning,) = [record.getMessage() for record in caplog.records]
    assert "did not end within 0.3 s" in warning
    for pid in out.read_text().split():
        wait_for(lambda pid=pid: has_ended(int(pid)), "the mirror's processes to end")


def test_a_hanging_mirror_does_not_outlive_a_run_that_is_killed(tmp_path, stub):
    out = stub(
        "import subprocess; child = subprocess.Popen(['sleep', '600']);"
        "out.write(f'{os.getpid()} {child.pid}\\n'); time.sleep(600)"
    )
    run = make_run(tmp_path / "run", [])
    program = (
        "import sys, time; from pathlib import Path; from ups.config.schema import Tracking;"
        "from ups.pipeline import mirror; mirror._LAST_RECORDS_SECONDS = 0.3;"
        "mirror.Mirror(Path(sys.argv[1]), Tracking(wandb='offline')).start(); time.sleep(600)"
    )
    follower = subprocess.Popen([sys.executable, "-c", program, run])
    wait_for(lambda: out.exists() and out.read_text().endswith("\n"), "the stub to hang")
    follower.kill()
    follower.wait()
    for pid in out.read_text().split():
        wait_for(lambda pid=pid: has_ended(int(pid)), "the mirror's processes to end")


@pytest.mark.slow
def test_a_run_that_only_evaluates_is_mirrored_and_one_that_finds_all_is_not(finished_root, tmp_path, stub):
    out, root = stub(), tmp_path / "root"
    shutil.copytree(finished_root[0], root)

    def run() -> Run:
        started = Run.start(TINY, {"tracking.wandb": "offline", "evaluation.members": 3}, root=root)
        run_all(started, on_line=lambda line: None, on_stage=lambda name, built: None)
        return started

    evaluated = run()
    assert [name for name, built in evaluated.built.items() if not built.hit] == ["evaluate"]
    *history, summary, end = out.read_text().splitlines()
    assert end == "finished"
    assert json.loads(summary) == {
        f"evaluation/{r['problem']}/{r['model']}/{r['metric']}": r["value"]
        for r in json.loads((evaluated.directory / "metrics.json").read_text())
    }
    assert any("training/operator/loss" in line for line in history), "of the trainings that it found"
    out.unlink()
    run()
    assert not out.exists()


def has_ended(pid: int) -> bool:
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.slow
@pytest.mark.parametrize(
    ("behaviour", "warning"),
    [
        ("time.sleep(600)", "did not end within 0.5 s"),
        ("raise OSError('no network')", "ended with exit code 1"),
    ],
    ids=["hangs", "fails"],
)
def test_a_run_ends_well_whatever_its_mirror_does(
    finished_root, tmp_path, stub, caplog, monkeypatch, behaviour, warning
):
    """One training of a finished chain is done again, with a mirror that is of no use."""
    monkeypatch.setattr(mirror_module, "_LAST_RECORDS_SECONDS", 0.5)
    stub(behaviour)
    root = tmp_path / "root"
    shutil.copytree(finished_root[0], root)
    shutil.rmtree(root / "artifacts" / "consistency")
    run = Run.start(TINY, {"tracking.wandb": "offline"}, root=root, until="consistency")
    with caplog.at_level(logging.WARNING):
        run_all(run, on_line=lambda line: None, on_stage=lambda name, built: None, until="consistency")
    assert not run.built["consistency"].hit
    (message,) = [record.getMessage() for record in caplog.records]
    assert warning in message
    assert str(run.directory) in message
    stages = [
        json.loads(line)["stage"] for line in (run.directory / "metrics.jsonl").read_text().splitlines()
    ]
    assert stages.count("consistency") == 9
