"""The deployments as a user meets them: deploy, run, look, run again, lose a file, cancel."""

import json
import os
import shutil
import signal
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from httpx import HTTPStatusError
from launches import launches, steps_done_again
from orchestra import CHECKOUT, STAGES, TINY, Orchestra, asked, wait_for
from struck_run import results

from flows.experiment import Experiment
from flows.nightly_benchmark import Night
from flows.sweep import SweepFile
from flows.validate_optimizations import Comparison

pytestmark = pytest.mark.slow

DEPLOYMENTS = yaml.safe_load((CHECKOUT / "deployments" / "prefect.yaml").read_text())["deployments"]
PARAMETERS = {"experiment": Experiment, "comparison": Comparison, "sweep": SweepFile, "night": Night}
NEVER_ENDS = "training.consistency.steps=1000000"


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda deployment: deployment["name"])
def test_a_deployment_names_a_valid_configuration(deployment):
    for name, value in deployment["parameters"].items():
        PARAMETERS[name].model_validate(value)


@pytest.mark.parametrize("flow", ["burgers_upt", "pdebench_upt"])
def test_all_deployments_start_in_the_checkout(deployed: Orchestra, flow: str):
    for name in [d["name"] for d in DEPLOYMENTS if d["entrypoint"] == f"flows.{flow}:{flow}"]:
        found = deployed.api("GET", f"/deployments/name/{flow.replace('_', '-')}/{name}")
        [step] = found["pull_steps"]
        assert step == {"ups.pipeline.checkout.enter": {}}, "no directory of the machine that has deployed"
        assert found["entrypoint"] == f"flows.{flow}:{flow}"
        schema = found["parameter_openapi_schema"]
        assert set(schema["properties"]) == {"experiment"}
        shown = schema["definitions"]["Experiment"]["properties"]
        assert {key for key, value in shown.items() if value["description"]} == {
            "config",
            "overrides",
            "preflight",
            "rebuild",
            "until",
        }


def test_runs_of_a_schedule_are_created(deployed: Orchestra):
    """With SQLAlchemy 2.1 none is, and only the server's log tells."""
    flow = deployed.api("GET", "/deployments/name/burgers-upt/demo")["flow_id"]
    # Without a work pool, so that the runs are planned and never started.
    every_minute = deployed.api(
        "POST",
        "/deployments/",
        name="every-minute",
        flow_id=flow,
        schedules=[{"schedule": {"cron": "* * * * *"}, "active": True}],
    )
    by_deployment = {"deployments": {"id": {"any_": [every_minute["id"]]}}}
    runs = wait_for(
        "scheduled runs",
        lambda: deployed.api("POST", "/flow_runs/filter", **by_deployment),
        deployed.server_log.read_text,
    )
    assert {run["state_type"] for run in runs} == {"SCHEDULED"}
    deployed.api("DELETE", f"/deployments/{every_minute['id']}")
    assert deployed.errors_in_the_servers_log() == []


def test_a_typo_is_refused_by_the_form_or_told_by_the_runs_state(deployed: Orchestra):
    """The form and the command send what the server checks by the parameter's schema; `--watch` shows the logs."""
    for wrong, told in (
        ({"overrides": {"seed": 1}}, "'config' is a required property"),
        ({"config": TINY, "override": {}}, "override"),
    ):
        with pytest.raises(HTTPStatusError) as refused:
            deployed.create_flow_run(wrong)
        assert told in refused.value.response.text
    wrong = json.dumps({"config": "burgers_tony"})
    assert "burgers_tony" in _refused(deployed, "burgers-upt/demo", "--param", f"experiment={wrong}")
    output = _refused(
        deployed, "burgers-upt/demo", "--watch", "--param", "experiment=" + asked(**{"traning.x": 1})
    )
    assert "traning: unknown key; did you mean 'training'?" in " ".join(output.split())
    assert "Traceback" not in output
    flow_run = deployed.latest_flow_run()
    assert flow_run["state_name"] == "Failed"
    assert "traning: unknown key; did you mean 'training'?" in flow_run["state"]["message"]


def test_a_deployment_runs_without_parameters_too(deployed: Orchestra):
    """That of the GPU, which is not here."""
    output = _refused(deployed, "burgers-upt/prod", "--watch")
    assert "no CUDA device" in " ".join(output.split())


def _refused(orchestra: Orchestra, *arguments: str) -> str:
    """Output of `prefect deployment run`, which has to fail."""
    done = orchestra.command("deployment", "run", *arguments)
    assert done.returncode == 1, done.stdout
    return done.stdout


def test_the_name_that_a_user_gives_is_kept(built: Orchestra):
    names = ["nu study 7", "first-try"]
    flow_runs = [built.create_flow_run({"config": TINY}, name=name) for name in names]
    assert [built.final_state(flow_run) for flow_run in flow_runs] == ["Completed"] * 2
    assert [built.api("GET", f"/flow_runs/{flow_run['id']}")["name"] for flow_run in flow_runs] == names


def test_of_two_runs_of_one_configuration_one_works_and_one_waits(built: Orchestra):
    """tests/flows/test_restarts.py repeats it at other moments, on another database and with two ranks."""
    earlier = built.runs()
    flow_runs = [built.run({"training.consistency.steps": 200}) for _ in range(2)]
    assert [built.final_state(flow_run) for flow_run in flow_runs] == ["Completed"] * 2
    one, other = (run for run in built.runs() if run not in earlier)
    assert results(one) == results(other)
    assert steps_done_again(launches([one, other], "consistency")) == 0
    assert [(run / "logs" / "evaluate.log").exists() for run in (one, other)].count(True) == 1


def test_the_first_run_builds_every_stage_and_shows_its_results(built: Orchestra):
    [flow_run] = built.api(
        "POST",
        "/flow_runs/filter",
        sort="START_TIME_ASC",
        limit=1,
        flow_runs={"name": {"any_": ["burgers_tiny"]}},
    )
    assert flow_run["state_name"] == "Completed"
    tasks = built.task_runs(flow_run)
    assert {name: task["state_name"] for name, task in tasks.items()} == dict.fromkeys(
        ["preflight", *STAGES, "publish"], "Completed"
    )
    chain = [*STAGES, "publish"]
    assert _edges(built, flow_run) == {"preflight": set(), "download": set()} | {
        b: {a} for a, b in pairwise(chain)
    }

    pointers = json.loads((built.first_run() / "artifacts.json").read_text())
    results = Path(built.environment["PREFECT_HOME"]) / "storage"
    assert {f"{stage}-{row['digest']}" for stage, row in pointers.items()} <= {
        path.name for path in results.iterdir()
    }, "the key of a result is that of its artifact"

    artifacts = {
        artifact["key"]: artifact
        for artifact in built.api(
            "POST", "/artifacts/filter", artifacts={"flow_run_id": {"any_": [flow_run["id"]]}}
        )
    }
    trainings = ("autoencoder", "operator", "diffusion", "consistency")
    assert set(artifacts) == {
        "burgers-tiny-accuracy",
        "burgers-tiny-uncertainty",
        "burgers-tiny-report",
        *(f"burgers-tiny-{stage}-progress" for stage in trainings),
    }
    for stage in trainings:
        progress = artifacts[f"burgers-tiny-{stage}-progress"]
        assert progress["data"] == 100
        assert progress["description"].startswith(f"{stage} of burgers_tiny, seed 0: step 20 of 20, loss ")
    rows = json.loads(artifacts["burgers-tiny-accuracy"]["data"])
    assert {"persistence", "spatial_mean", "operator", "diffusion", "consistency_1"} <= {
        row["model"] for row in rows
    }
    assert "decoded fields" in artifacts["burgers-tiny-accuracy"]["description"]
    assert "report.html" in artifacts["burgers-tiny-report"]["data"]
    assert "](data:image/png;base64," in artifacts["burgers-tiny-report"]["data"]


def _edges(orchestra: Orchestra, flow_run: dict) -> dict[str, set[str]]:
    nodes = dict(orchestra.api("GET", f"/flow_runs/{flow_run['id']}/graph-v2")["nodes"])
    return {
        node["label"]: {nodes[parent["id"]]["label"] for parent in node["parents"]} for node in nodes.values()
    }


def test_a_damaged_and_a_deleted_artifact_are_rebuilt_though_prefect_has_their_records(built: Orchestra):
    first_run = built.first_run()
    damaged = built.artifact("diffusion", first_run)
    shutil.rmtree(built.artifact("evaluate", first_run))
    victim = next(damaged.glob("*.safetensors"))
    content = bytearray(victim.read_bytes())
    content[-1] ^= 1
    victim.write_bytes(content)

    flow = built.flow()
    output, _ = flow.communicate()
    assert flow.returncode == 0, output
    states = {name: task["state_name"] for name, task in built.task_runs(built.latest_flow_run()).items()}
    # The rebuilt diffusion model equals the lost one, so what was made from it still counts.
    expected = dict.fromkeys(STAGES, "Cached") | dict.fromkeys(
        ("preflight", "diffusion", "evaluate", "publish"), "Completed"
    )
    assert states == expected
    [reason] = built.root.glob(f"artifacts/.quarantine/diffusion-{damaged.name}*/reason.txt")
    assert victim.name in reason.read_text()

    again = built.flow()
    output, _ = again.communicate()
    assert again.returncode == 0, output
    states = {name: task["state_name"] for name, task in built.task_runs(built.latest_flow_run()).items()}
    assert states == dict.fromkeys(STAGES, "Cached") | {"preflight": "Completed", "publish": "Completed"}


def test_a_cancelled_run_leaves_a_checkpoint_and_no_process(built: Orchestra, tmp_path):
    flow_run = _start_until_checkpoint(built, hooks=tmp_path / "hooks")
    built.prefect("flow-run", "cancel", flow_run["id"])
    assert built.final_state(flow_run) == "Cancelled"
    _expect_hooks(tmp_path / "hooks", "interrupted")
    assert built.stage_processes() == []
    step = _expect_last_step_in_a_checkpoint(built)
    _expect_message(built, flow_run, f"consistency: checkpoint at step {step}")
    assert built.task_runs(flow_run)["consistency"]["state_name"] == "Cancelled"
    assert "Traceback" not in _logs(built, flow_run)
    assert "Crash" not in _logs(built, flow_run)
    assert _event_messages(built, flow_run).count("Flow run was cancelled successfully.") == 1


def test_suspend_ends_the_training_at_a_checkpoint_and_resume_goes_on_there(built: Orchestra):
    flow_run = _start_until_checkpoint(built)
    state = {
        "type": "PAUSED",
        "name": "Suspended",
        "state_details": {"pause_timeout": "2100-01-01T00:00:00Z", "pause_reschedule": True},
    }
    url = f"/flow_runs/{flow_run['id']}"
    assert built.api("POST", f"{url}/set_state", state=state)["status"] == "ACCEPT"
    wait_for("the stage to end", lambda: not built.stage_processes())
    step = _expect_last_step_in_a_checkpoint(built)
    assert built.task_runs(flow_run)["consistency"]["state"]["message"] == f"checkpoint at step {step}"
    assert built.api("GET", url)["state_name"] == "Suspended"

    built.api("POST", f"{url}/resume")
    wait_for("it to go on", lambda: f"resumes at step {step} of 1000000" in _logs(built, flow_run))
    _cancel(built, flow_run)
    # One bar for all attempts at one training.
    shown = built.api("POST", "/artifacts/filter", artifacts={"flow_run_id": {"any_": [flow_run["id"]]}})
    assert [each["key"] for each in shown] == ["burgers-tiny-consistency-progress"]


def _expect_message(orchestra: Orchestra, flow_run: dict, message: str) -> None:
    wait_for(
        message,
        lambda: orchestra.api("GET", f"/flow_runs/{flow_run['id']}")["state"]["message"] == message,
        orchestra.worker_said,
    )


def _event_messages(orchestra: Orchestra, flow_run: dict) -> list[str]:
    """Of both events, once they have reached the server's log of events; docs/how-to/prefect-ui.md tells them apart."""
    asked = {
        "event": {"name": ["prefect.flow-run.Cancelled"]},
        "resource": {"id": [f"prefect.flow-run.{flow_run['id']}"]},
    }

    def messages() -> list[str]:
        found = orchestra.api("POST", "/events/filter", filter=asked)["events"]
        return [event["resource"]["prefect.state-message"] for event in found]

    return wait_for("two events", lambda: found if len(found := messages()) == 2 else [])


def _logs(orchestra: Orchestra, flow_run: dict) -> str:
    """All, the newest first: the server gives 200 at a time."""
    logs = {"flow_run_id": {"any_": [flow_run["id"]]}}
    lines: list[str] = []
    while page := orchestra.api("POST", "/logs/filter", logs=logs, sort="TIMESTAMP_DESC", offset=len(lines)):
        lines += [record["message"] for record in page]
    return "\n".join(lines)


def test_a_killed_engine_leaves_no_process_and_the_next_run_resumes(built: Orchestra, tmp_path):
    flow_run = _start_until_checkpoint(built, hooks=tmp_path / "hooks")
    assert built.mirrors(), "its end is looked at below"
    engine = built.engine()
    os.kill(engine, signal.SIGKILL)
    assert built.final_state(flow_run) == "Crashed"
    _expect_hooks(tmp_path / "hooks", "failed")
    wait_for("the stage to end", lambda: not built.stage_processes())
    wait_for("the W&B mirror to end", lambda: not built.mirrors())
    step = _expect_last_step_in_a_checkpoint(built)
    # No task run stays Running: this waits until all have ended.
    assert built.task_runs(flow_run)["consistency"]["state_name"] == "Crashed"

    flow = built.flow(NEVER_ENDS, PREFECT_API_URL=None)
    assert flow.stdout is not None
    resumed = next((line for line in flow.stdout if "resumes at step" in line), "no such line")
    # Ctrl-C in a terminal: all of the group get it, and so would the temporary server, without which the flow
    # waits for minutes to report its last state.
    os.killpg(flow.pid, signal.SIGINT)
    output, _ = flow.communicate()
    assert f"resumes at step {step} of 1000000" in resumed, output
    assert flow.returncode == 75, output
    assert "Finished in state Crashed" in output
    assert "ConnectError" not in output
    assert built.stage_processes() == []


def test_a_run_that_is_retried_in_the_ui_or_by_the_command_goes_on_where_it_was(built: Orchestra):
    """Only what had not ended runs again, and it resumes inside: of one that was cancelled, and of one that failed."""
    flow_run = _start_until_checkpoint(built, "training.consistency.steps=1500")
    _cancel(built, flow_run)
    step = _expect_last_step_in_a_checkpoint(built)
    held = {path: path.read_bytes() for path in Path(_newest_checkpoint(built)).parent.iterdir()}
    for path in held:
        path.write_bytes(b"spoilt")
    built.prefect("flow-run", "retry", flow_run["id"])
    assert built.final_state(flow_run) == "Failed"
    assert "every checkpoint is damaged" in built.worker_said(), "it looked for them"
    for path in sorted(held):
        path.write_bytes(held[path])
    built.retry(flow_run)
    assert built.final_state(flow_run) == "Completed"
    run = built.api("GET", f"/flow_runs/{flow_run['id']}")
    assert run["run_count"] == 3
    states = {name: task["state_name"] for name, task in built.task_runs(flow_run).items()}
    assert states == dict.fromkeys(STAGES, "Cached") | dict.fromkeys(
        ("preflight", "consistency", "evaluate", "publish"), "Completed"
    )
    assert f"resumes at step {step} of 1500" in _logs(built, flow_run)


def _cancel(orchestra: Orchestra, flow_run: dict) -> None:
    orchestra.cancel(flow_run)
    assert orchestra.final_state(flow_run) == "Cancelled"


def _newest_checkpoint(orchestra: Orchestra) -> str:
    with suppress(FileNotFoundError):  # an old one was removed while we looked
        checkpoints = orchestra.checkpoints("consistency")
        return str(max(checkpoints, key=lambda path: path.stat().st_mtime_ns, default=""))
    return ""


def _start_until_checkpoint(
    orchestra: Orchestra, assignment: str = NEVER_ENDS, *, hooks: Path | None = None
) -> dict:
    """hooks: file to which a finish hook writes."""
    before = _newest_checkpoint(orchestra)
    key, _, value = assignment.partition("=")
    overrides = {key: int(value)} | ({"hooks.always": f"echo $UPS_STATE >> {hooks}"} if hooks else {})
    flow_run = orchestra.run(overrides)
    wait_for(
        "a checkpoint",
        lambda: orchestra.stage_processes() and _newest_checkpoint(orchestra) not in {before, ""},
        orchestra.worker_said,
    )
    return flow_run


def _expect_hooks(path: Path, state: str) -> None:
    """Once."""
    wait_for("the finish hook", path.exists)
    assert path.read_text() == f"{state}\n"


def _expect_last_step_in_a_checkpoint(orchestra: Orchestra) -> int:
    """Of the stage that was interrupted last: other tests leave some, too."""
    interrupted = orchestra.root.glob("artifacts/.work/consistency/*/interrupted.json")
    newest = max(interrupted, key=lambda path: path.stat().st_mtime_ns)
    step = json.loads(newest.read_text())["step"]
    assert step > 0
    assert list(newest.parent.glob(f"checkpoints/*step-{step:08d}*"))
    return step


def test_what_a_run_lacks_is_told_by_its_first_task_and_hooks_are_run(built: Orchestra, tmp_path):
    runs = set((built.root / "runs").iterdir())
    lacks = asked(**{"execution.threads": 1000, "hooks.failed": f"echo $UPS_STATE >> {tmp_path / 'hooks'}"})
    _refused(built, "burgers-upt/demo", "--watch", "--param", f"experiment={lacks}")
    flow_run = built.latest_flow_run()
    assert "1000 threads for each process" in flow_run["state"]["message"]
    states = {name: task["state_name"] for name, task in built.task_runs(flow_run).items()}
    assert states == {"preflight": "Failed"}
    assert set((built.root / "runs").iterdir()) == runs
    _expect_hooks(tmp_path / "hooks", "failed")


@pytest.mark.long
def test_a_dry_preflight_tries_every_stage_and_says_what_it_will_take(built: Orchestra):
    changed = {"seed": 5, "resources.hourly_rate_usd": 2.0}
    experiment = json.loads(asked(**changed)) | {"preflight": "dry"}
    built.prefect(
        "deployment", "run", "burgers-upt/demo", "--watch", "--param", f"experiment={json.dumps(experiment)}"
    )
    flow_run = built.latest_flow_run()
    artifacts = built.api("POST", "/artifacts/filter", artifacts={"flow_run_id": {"any_": [flow_run["id"]]}})
    [table] = [artifact for artifact in artifacts if artifact["key"] == "burgers-tiny-preflight"]
    assert "USD" in table["description"]
    assert {row["to be built"].replace("_", "-") for row in json.loads(table["data"])} <= set(STAGES)
    assert not list(built.root.glob(".probe-*"))


@pytest.mark.long
def test_an_optimisation_that_does_not_hold_its_promise_fails_the_run(deployed: Orchestra):
    short = {"training.operator.steps": 12, "training.operator.warmup_steps": 2, "execution.device": "cpu"}
    comparison = {
        "baseline": {"config": "burgers_tiny", "overrides": short},
        "optimised": {"config": "burgers_tiny", "overrides": short | {"training.operator.accumulation": 2}},
        "seeds": 2,
        "speed": 1000.0,
        "memory": 10.0,
    }
    name = "validate-optimizations/prod"
    _refused(deployed, name, "--watch", "--param", f"comparison={json.dumps(comparison)}")
    flow_run = deployed.latest_flow_run()
    assert "speed: " in flow_run["state"]["message"]
    assert "is not shown to be above 1000" in flow_run["state"]["message"]
    tasks = deployed.task_runs(flow_run)
    arms = ("baseline", "optimised")
    assert set(tasks) == {"judge"} | {f"preflight of {arm}" for arm in arms} | {
        f"{arm}, seed {seed}" for arm in arms for seed in (0, 1)
    }
    lenient = json.dumps(comparison | {"speed": 1e-9})
    deployed.prefect("deployment", "run", name, "--watch", "--param", f"comparison={lenient}")
    flow_run = deployed.latest_flow_run()
    assert flow_run["state_name"] == "Completed"
    [table] = deployed.api("POST", "/artifacts/filter", artifacts={"flow_run_id": {"any_": [flow_run["id"]]}})
    rows = json.loads(table["data"])
    assert [row["training"] for row in rows] == ["baseline", "optimised"]
    assert rows[1]["gates"] == "passed"
