"""Commands answer with the promised exit codes, and errors say where, what, and how to mend it."""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from command_line import TINY, start_ups, ups
from downloads import trajectory_file

from ups import errors
from ups.artifacts import Store
from ups.artifacts.identity import digest_of
from ups.commands import main as main_module
from ups.pipeline.supervise.process import DETAIL

COMMANDS = ["validate", "plan", "run", "stage", "evaluate", "report", "cache"]


def test_help_names_every_command_and_every_exit_code(answer):
    code, text, _ = answer("--help")
    assert code == 0
    assert all(re.search(rf"^    {command} ", text, re.MULTILINE) for command in COMMANDS)
    assert all(f"{number} " in text for number in (0, 1, 2, 3, 4, 5, 7, 8, 75))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(answer, command):
    code, text, _ = answer(command, "--help")
    assert code == 0
    assert text.startswith(f"usage: ups {command} ")


@pytest.mark.parametrize("action", ["ls", "verify", "gc"])
def test_every_action_of_the_cache_has_help(answer, action):
    assert answer("cache", action, "--help")[0] == 0


def test_help_loads_neither_torch_nor_pydantic():
    """What keeps it fast, without a clock: `ups --help` is asked for more often than anything else."""
    done = ups("--help", PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 0
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "|" in line}
    assert "ups.commands.main" in loaded
    assert not loaded & {"torch", "numpy", "pydantic", "yaml", "rich", "ups.config", "ups.pipeline"}


@pytest.mark.parametrize(
    "arguments",
    [
        [], ["nothing"], ["plan"], ["run", "x.yaml", "--nope"], ["stage", "training", "x.yaml"],
        ["run", "x.yaml", "--until", "end"], ["cache"], ["cache", "rm"], ["evaluate", "run"],
        ["evaluate", "run", "--file", "x", "--rows", "0"], ["evaluate", "run", "--file", "x", "--rows", "-5"],
        ["evaluate", "run", "--file", "x", "--rows", "many"],
    ],
)  # fmt: skip
def test_wrong_arguments_are_2(answer, arguments):
    code, _, text = answer(*arguments)
    assert code == 2
    assert "usage: ups" in text


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["validate", "absent.yaml"], 2, "configuration error: absent.yaml: no such file\n  fix: check the path\n"),
        (["validate", TINY, "--set", "seed"], 2, "configuration error: --set: 'seed' is not an assignment\n  fix: "),
        (["plan", TINY, "--set", "data.nu=0"], 2, "  data.nu: must be greater than 0 (got 0)\n"),
        (
            ["run", TINY, "--root", "root", "--set", "execution.device=cuda"],
            3,
            "preflight error: execution.device: no CUDA device, or this torch is built without CUDA\n  fix: ",
        ),
        (
            ["run", TINY, "--root", "root", "--set", "execution.threads=1000"],
            3,
            "preflight error: execution.threads: 1000 threads for each process, and this process may use ",
        ),
        (
            ["run", TINY, "--root", "/proc/here"],
            4,
            "storage error: /proc: Permission denied\n  fix: make it a directory that you may write to",
        ),
        (["stage", "cache-encode", "absent.yaml"], 2, "absent.yaml: no such file"),
        (["run", "absent.yaml", "--until", "cache-encode"], 2, "absent.yaml: no such file"),
        (
            [
                "plan", TINY, "--set",
                "data={source: file, path: /absent.hdf5, trajectories: {train: 9, validation: 9, test: 9}}",
            ],
            3,
            "data error: /absent.hdf5: no such file\n  fix: check data.path",
        ),
        (["report", "nowhere"], 2, "nowhere: is not the directory of a finished run (it has no metrics.json)\n  fix"),
        (["evaluate", "nowhere", "--file", "x"], 2, "nowhere: there is no such run or file, and no model of this name comes with the library\n  fix"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_explained(answer, monkeypatch, tmp_path, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ups.pipeline.device._cuda_available", lambda: False)
    found, _, text = answer(*arguments)
    assert found == code
    assert message in text
    assert "Traceback" not in text
    assert list(tmp_path.iterdir()) == [], "nothing was written"


def test_validate_prints_the_complete_configuration(answer, tmp_path):
    code, text, _ = answer("validate", TINY, "--set", "seed=7")
    assert code == 0
    values = yaml.safe_load(text)
    assert values["seed"] == 7
    assert values["training"]["operator"]["rollout_steps"] == 2
    (tmp_path / "complete.yaml").write_text(text)
    assert answer("validate", tmp_path / "complete.yaml")[1] == text


def test_the_schema_has_every_key_with_its_meaning_limits_and_default(answer):
    code, text, _ = answer("validate", "--schema")
    assert code == 0
    schema = json.loads(text)
    assert set(schema["required"]) == {"name", "data", "model", "training"}
    rollout = schema["$defs"]["OperatorTraining"]["properties"]["rollout_steps"]
    assert rollout == rollout | {"default": 2, "minimum": 1, "type": "integer"}
    assert "gradients through" in rollout["description"]
    assert schema["additionalProperties"] is False
    # A key whose value is one section is described by that; a fixed word (`kind`) by the section that it is in.
    silent = [
        f"{section['title']}.{key}"
        for section in (schema, *schema["$defs"].values())
        for key, value in section.get("properties", {}).items()
        if not value.keys() & {"description", "$ref", "const"}
    ]
    assert silent == []
    assert [name for name, section in schema["$defs"].items() if not section.get("description")] == []
    code, _, text = answer("validate")
    assert code == 2
    assert "CONFIG: is missing" in text


def test_plan_is_printed_as_a_table_and_as_json(answer, tmp_path):
    code, text, _ = answer("plan", TINY, "--root", tmp_path)
    assert code == 0
    assert text.count("never built") == 1
    assert "after consistency" in text
    code, text, _ = answer("plan", TINY, "--root", tmp_path, "--json")
    rows = json.loads(text)
    assert [row["stage"] for row in rows][:2] == ["download", "autoencoder"]
    assert {row["verdict"] for row in rows} == {"MISS"}
    assert [row["reason"] for row in rows][:2] == ["never built", "after download"]
    assert len(rows[0]["digest"]) == 64
    assert {row["digest"] for row in rows[1:]} == {None}


def test_the_root_comes_from_the_argument_the_variable_or_the_place(answer, monkeypatch, tmp_path):
    from ups.pipeline.run import find_root

    monkeypatch.setenv("UPS_ROOT", "/from/variable")
    assert find_root("/given") == Path("/given")
    assert find_root(None) == Path("/from/variable")
    monkeypatch.setenv("UPS_ROOT", "")
    monkeypatch.chdir(tmp_path)
    assert find_root(None) == tmp_path
    assert find_root("below") == tmp_path / "below"


@pytest.mark.parametrize(
    ("kind", "title"),
    [
        (errors.ConfigurationError, "configuration error"),
        (errors.PreflightError, "preflight error"),
        (errors.DataError, "data error"),
        (errors.StorageError, "storage error"),
        (errors.IntegrityError, "integrity error"),
        (errors.StageError, "stage error"),
        (errors.Interrupted, "interrupted"),
        (errors.ProcessKilled, "process killed"),
        (errors.OutOfMemoryError, "out of memory"),
        (errors.NotFiniteError, "not finite"),
    ],
)
def test_titles_read_well(kind, title):
    assert main_module._title(kind("x")) == title


@pytest.mark.parametrize(
    ("title", "error"),
    [
        ("disk full", OSError(28, "No space left on device", "/a/b")),
        ("storage error", PermissionError(13, "Denied", "/a/b")),
    ],
)
def test_an_error_of_the_system_is_4_and_names_the_path(answer, monkeypatch, title, error):
    def fail(options):
        raise error

    monkeypatch.setattr("ups.commands.plan.execute", fail)
    code, _, text = answer("plan", TINY)
    assert code == 4
    assert text.startswith(f"{title}: /a/b: {error.strerror}\n  fix: ")


def test_an_interruption_is_75(answer, monkeypatch):
    def interrupt(options):
        raise KeyboardInterrupt

    monkeypatch.setattr("ups.commands.plan.execute", interrupt)
    assert answer("plan", TINY)[0] == 75


@pytest.mark.parametrize("command", ["validate", "plan"])
def test_a_reader_that_goes_away_is_neither_a_traceback_nor_a_failed_stage(tmp_path, command):
    process = start_ups(command, TINY, PYTHONUNBUFFERED="1", UPS_ROOT=str(tmp_path))
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait() == 75


def test_a_real_process_ends_with_the_code(tmp_path):
    done = ups("plan", tmp_path / "absent.yaml")
    assert done.returncode == 2
    assert done.stderr.startswith("configuration error: ")
    assert done.stdout == ""


def test_a_finished_run_is_cached_and_shows_its_results(finished_root, tmp_path):
    root = tmp_path / "root"
    shutil.copytree(finished_root[0], root)
    done = ups("run", TINY, "--root", root, "--set", "tracking.wandb=disabled")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert sum(" cached  " in line for line in lines) == 7
    assert sum(line.startswith("operator ") for line in lines) == 3, "plan, stage and result"
    assert any(
        line.startswith("burgers1d nu=0.01, test split: 4 trajectories, 8 steps, 32 points") for line in lines
    )
    (report,) = [line.removeprefix("report: ") for line in lines if line.startswith("report: ")]
    assert Path(report).is_file()
    assert lines[-1].startswith(f"run: {Path(report).parent}")
    assert len(list((root / "runs").iterdir())) == 2
    records = [json.loads(line) for line in (Path(report).parent / "metrics.jsonl").read_text().splitlines()]
    assert {record["stage"] for record in records} == {"autoencoder", "operator", "diffusion", "consistency"}
    assert len(records) == len((finished_root[1] / "metrics.jsonl").read_text().splitlines())


def test_a_run_is_found_by_its_name(finished_root, tmp_path, answer):
    root = tmp_path / "root"
    shutil.copytree(finished_root[0], root)
    (directory,) = (root / "runs").iterdir()
    (directory / "report.html").unlink()
    code, output, _ = answer("report", directory.name, "--root", root)
    assert code == 0
    assert output.splitlines()[-1] == str(directory / "report.html")
    assert (directory / "report.html").is_file()


def test_whoever_may_read_the_run_may_read_its_weights(finished_root):
    modes = {
        path.stat().st_mode
        for path in (finished_root[0] / "artifacts").glob("[!.]*/*/**/*")
        if path.is_file()
    }
    assert len(modes) == 1


def test_a_finished_run_needs_no_torch_in_its_own_process(finished_root, tmp_path):
    """What keeps a finished configuration fast: only the report has a process that may load more."""
    root = tmp_path / "root"
    shutil.copytree(finished_root[0], root)
    done = ups(
        "run", TINY, "--root", root, "--until", "consistency", "--set", "tracking.wandb=disabled",
        PYTHONPROFILEIMPORTTIME="1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "|" in line}
    assert "ups.pipeline.run" in loaded
    assert not loaded & {"torch", "numpy", "zarr", "h5py", "matplotlib", "wandb"}


def test_the_run_directory_tells_all(finished_root):
    root, run = finished_root
    assert {path.name for path in run.iterdir()} >= {
        "config.yaml", "plan.json", "env.json", "metrics.jsonl", "metrics.json", "artifacts.json", "report.html", "logs",
    }  # fmt: skip
    plan = json.loads((run / "plan.json").read_text())
    pointers = json.loads((run / "artifacts.json").read_text())
    assert {row["stage"] for row in plan} == set(pointers)
    store = Store(root)
    for row in plan:
        pointer = pointers[row["stage"]]
        assert pointer["digest"] == row["digest"]
        assert (run / pointer["path"]).resolve() == store.path(row["stage"], row["digest"])
        assert not pointer["hit"]
    assert run.name.endswith(digest_of(yaml.safe_load((run / "config.yaml").read_text()))[:8])
    lines = (run / "logs" / "operator.log").read_text().splitlines()
    assert next(line for line in lines if not line.startswith(DETAIL)).startswith("operator: ")
    environment = json.loads((run / "env.json").read_text())
    assert environment["python"] == sys.version.split()[0]


def test_one_damaged_bit_is_5_and_the_next_run_mends_it(finished_root, tmp_path):
    root = tmp_path / "root"
    shutil.copytree(finished_root[0], root)
    run = root / "runs" / finished_root[1].name
    path = trajectory_file(next((root / "artifacts" / "download").iterdir()), "burgers1d", "train").resolve()
    content = bytearray(path.read_bytes())
    content[-100] ^= 4
    path.write_bytes(content)

    done = ups("cache", "verify", "--root", root)
    assert done.returncode == 5
    assert done.stdout.count("intact") == 10
    assert "trajectories.hdf5 has other content than was sealed" in done.stdout
    assert "1 artifact is damaged" in done.stderr
    assert "fix: run the configuration again" in done.stderr

    done = ups("evaluate", run, "--file", path)
    assert done.returncode == 5
    assert done.stderr.startswith("integrity error: ")
    assert "fix: run its configuration again" in done.stderr

    done = ups("stage", "consistency", TINY, "--root", root, "--set", "tracking.wandb=disabled")
    assert done.returncode == 0, done.stderr
    assert "download: damaged" in done.stdout
    assert done.stdout.count(" cached  ") == 5, "what came out equal keeps its dependants"
    assert ups("cache", "verify", "--root", root).returncode == 0


def test_the_cache_is_listed_and_cleaned(finished_root, tmp_path, answer):
    root = tmp_path / "root"
    shutil.copytree(finished_root[0], root)
    code, text, _ = answer("cache", "ls", "--root", root)
    assert code == 0
    assert text.count(finished_root[1].name) == 10
    assert "11 artifacts, " in text
    entries = json.loads(answer("cache", "ls", "--root", root, "--json")[1])
    stages = set(json.loads((finished_root[1] / "artifacts.json").read_text()))
    assert {entry["stage"] for entry in entries} == stages | {"data", "figures"}

    code, text, _ = answer("cache", "gc", "--root", root)
    assert code == 0
    assert text.count(f"run {finished_root[1].name} points to it") == 10
    shutil.rmtree(root / "runs")
    code, text, _ = answer("cache", "gc", "--root", root, "--dry-run")
    assert text.count("would remove ") == 10
    code, text, _ = answer("cache", "gc", "--root", root)
    assert text.count("removed ") == 10
    assert text.splitlines()[-1].endswith("MB freed, 0.0 MB kept")
    assert list(Store(root)) == []


def test_gc_says_what_a_running_process_uses(finished_root, tmp_path, answer):
    root = tmp_path / "root"
    shutil.copytree(finished_root[0], root)
    shutil.rmtree(root / "runs")
    (digest,) = (path.name for path in (root / "artifacts" / "operator").iterdir())
    with Store(root).lease("operator", digest):
        code, text, _ = answer("cache", "gc", "--root", root)
    assert code == 0
    assert re.search(rf"^kept operator/{digest}  \d.\d MB: a running process uses it$", text, re.MULTILINE)
    assert [path.parent.name for path in Store(root)] == ["operator"]


def test_until_stops_early_and_a_stage_builds_what_it_needs(finished_root, tmp_path):
    """From a root where the first stage is gone: it is built, and what it feeds is found."""
    root = tmp_path / "root"
    shutil.copytree(finished_root[0], root)
    shutil.rmtree(root / "artifacts" / "download")
    done = ups("stage", "cache_encode", TINY, "--root", root, "--set", "tracking.wandb=disabled")
    assert done.returncode == 0, done.stderr
    stages = re.findall(r"^(\w+) (cached|done in)", done.stdout, re.MULTILINE)
    assert stages == [("download", "done in"), ("autoencoder", "cached"), ("cache_encode", "cached")]
    assert "report:" not in done.stdout
    done = ups("run", TINY, "--until", "download", "--root", root)
    assert re.findall(r"^(\w+) (cached|done in)", done.stdout, re.MULTILINE) == [("download", "cached")]
