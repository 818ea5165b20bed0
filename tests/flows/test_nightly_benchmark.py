"""The nightly benchmark on a real server and worker: a clean night, one that is worse, one that is late, two at once."""

import json
import subprocess
import sys
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml
from orchestra import CHECKOUT, Orchestra, wait_for

from ups.pipeline.nightly.judge import LEAST_NIGHTS
from ups.pipeline.nightly.suite import QUICK

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
GENERATOR = "generator burgers1d nu=0.01"


def start(orchestra: Orchestra, **night: object) -> dict:
    deployment = orchestra.api("GET", "/deployments/name/nightly-benchmark/prod")
    parameters = {"night": {"quick": True, **night}}
    return orchestra.api("POST", f"/deployments/{deployment['id']}/create_flow_run", parameters=parameters)


def ended(orchestra: Orchestra, flow_run: dict) -> dict:
    final = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}

    def found() -> dict | None:
        run = orchestra.api("GET", f"/flow_runs/{flow_run['id']}")
        return run if run["state_type"] in final else None

    for _ in range(4):
        with suppress(pytest.fail.Exception):  # measuring takes longer than what others wait for
            return wait_for("the end of the run", found)
    return wait_for("the end of the run", found, orchestra.worker_said)


def history(orchestra: Orchestra) -> Path:
    return orchestra.root / "nightly" / f"quick-{QUICK.digest}.jsonl"


@pytest.fixture(scope="module")
def first_night(deployed: Orchestra) -> tuple[dict, dict]:
    """Two runs that are due at once: the one that was measured, and the other one."""
    runs = [start(deployed), start(deployed)]
    one, other = (ended(deployed, run) for run in runs)
    return (one, other) if one["state_type"] == "COMPLETED" else (other, one)


@pytest.mark.long
def test_one_night_is_measured_and_shown_and_what_is_due_meanwhile_is_cancelled(
    deployed: Orchestra, first_night: tuple[dict, dict]
):
    measured, other = first_night
    assert (measured["state_name"], other["state_type"]) == ("Completed", "CANCELLED"), deployed.worker_said()
    (line,) = history(deployed).read_text().splitlines()
    values = json.loads(line)["measurements"]
    assert {"operator error", GENERATOR, "cached flow"} <= values.keys()
    artifacts = {
        artifact["key"]: artifact
        for artifact in deployed.api(
            "POST", "/artifacts/filter", artifacts={"flow_run_id": {"any_": [measured["id"]]}}
        )
    }
    assert artifacts["nightly-quick-trends"]["data"].startswith("data:image/png;base64,iVBOR")
    rows = json.loads(artifacts["nightly-quick-verdicts"]["data"])
    assert {row["measurement"] for row in rows} == values.keys()
    assert "Nothing is worse" in artifacts["nightly-quick-report"]["data"]


class Mailbox(HTTPServer):
    """What a webhook gets."""

    def __init__(self) -> None:
        self.letters: list[str] = []
        super().__init__(("127.0.0.1", 0), Postman)


class Postman(BaseHTTPRequestHandler):
    server: Mailbox

    def do_POST(self) -> None:
        self.server.letters.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing: the test looks at what came."""


@pytest.fixture
def mailbox() -> Mailbox:
    """It stands until the process ends, and so longer than the server, which tells again what it may not have told."""
    box = Mailbox()
    threading.Thread(target=box.serve_forever, daemon=True).start()
    return box


@pytest.mark.long
def test_a_night_that_is_worse_fails_and_an_automation_tells_people(
    deployed: Orchestra, first_night: tuple[dict, dict], mailbox: Mailbox, tmp_path: Path
):
    code = (
        "import sys\n"
        "from prefect.blocks.notifications import CustomWebhookNotificationBlock as Webhook\n"
        "print(Webhook(name='people', url=sys.argv[1], json_data={'text': '{{subject}} {{body}}'}).save('people'))\n"
    )
    block = subprocess.check_output(
        [sys.executable, "-c", code, f"http://127.0.0.1:{mailbox.server_port}/"],
        env=deployed.environment,
        text=True,
    ).split()[-1]
    automation = (CHECKOUT / "deployments" / "nightly_regressed.yaml").read_text()
    automation = automation.replace("BLOCK\n", f"{block}\n").replace("benchmark.nightly", "benchmark.quick")
    assert yaml.safe_load(automation)["actions"][0]["block_document_id"] == block
    file = tmp_path / "automation.yaml"
    file.write_text(automation)
    deployed.prefect("automation", "create", "--from-file", str(file))

    night = json.loads(history(deployed).read_text().splitlines()[0])
    night["measurements"][GENERATOR]["value"] /= 1000
    with history(deployed).open("a") as lines:
        lines.writelines(json.dumps(night) + "\n" for _ in range(LEAST_NIGHTS + 2))
    failed = ended(deployed, start(deployed, only=["generators"]))
    assert failed["state_name"] == "Failed"
    assert f"{GENERATOR} is " in failed["state"]["message"]
    letter, *_ = wait_for("the notification", lambda: mailbox.letters, deployed.server_log.read_text)
    assert f"{GENERATOR} is " in letter
    assert "cached flow" not in letter


def test_a_run_of_the_schedule_that_comes_too_late_is_skipped(deployed: Orchestra):
    """As after a night in which no worker stood; here a tenth of a second is too late."""
    deployment = deployed.api("GET", "/deployments/name/nightly-benchmark/prod")
    late = {"night": {"quick": True, "only": [], "latest_start_hours": 0.1 / 3600}}
    deployed.api("PATCH", f"/deployments/{deployment['id']}", parameters=late)
    (every_night,) = deployment["schedules"]
    assert every_night["schedule"]["timezone"] == "Europe/Berlin"
    deployed.api(
        "PATCH",
        f"/deployments/{deployment['id']}",
        schedules=[{"schedule": {"cron": "* * * * *"}, "active": True, "slug": "every-minute"}],
    )
    by_schedule = {
        "flow_runs": {"deployment_id": {"any_": [deployment["id"]]}, "state": {"name": {"any_": ["Skipped"]}}}
    }
    (skipped, *_) = wait_for(
        "a skipped run",
        lambda: deployed.api("POST", "/flow_runs/filter", **by_schedule),
        deployed.worker_said,
    )
    again = {name: every_night[name] for name in ("schedule", "active", "slug")}
    deployed.api("PATCH", f"/deployments/{deployment['id']}", schedules=[again])
    assert "hours late" in skipped["state"]["message"]
    assert skipped["total_run_time"] < 60, "nothing was measured"
