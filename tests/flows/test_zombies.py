"""Runs that ended without a word, on a real server."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from orchestra import Orchestra, wait_for

from deployments.server import connected
from deployments.zombies import AUTOMATION, HEARTBEAT, register

pytestmark = [pytest.mark.slow, pytest.mark.long]  # three minutes without a heartbeat


def test_a_run_that_is_not_heard_of_any_more_is_crashed_and_no_other(server: Orchestra):
    soon = AUTOMATION.trigger.model_copy(update={"within": timedelta(seconds=15)})
    flow = server.api("POST", "/flows/", name="zombie")["id"]
    lost, alive, done = (_running(server, flow) for _ in range(3))
    with connected(server.url) as client:
        try:
            register(client, AUTOMATION.model_copy(update={"trigger": soon}))
            assert len(client.read_automations_by_name(AUTOMATION.name)) == 1
            for run in (lost, alive, done):
                _emit(client, run)
            server.api("POST", f"/flow_runs/{done}/set_state", state={"type": "COMPLETED"})

            def is_found() -> bool:
                _emit(client, alive)
                return _state(server, lost)["type"] != "RUNNING"

            wait_for("the lost run to be found", is_found)
        finally:
            register(client)
    assert _state(server, lost)["type"] == "CRASHED"
    assert _state(server, lost)["message"].startswith("No heartbeat")
    assert _state(server, alive)["type"] == "RUNNING"
    assert _state(server, done)["type"] == "COMPLETED"


def _running(server: Orchestra, flow: str) -> str:
    return server.api("POST", "/flow_runs/", flow_id=flow, state={"type": "RUNNING"})["id"]


def _state(server: Orchestra, run: str) -> dict:
    return server.api("GET", f"/flow_runs/{run}")["state"]


def _emit(client, run: str) -> None:
    """What a flow's process sends every half minute."""
    heartbeat = {
        "id": str(uuid4()),
        "occurred": datetime.now(UTC).isoformat(),
        "event": HEARTBEAT,
        "resource": {"prefect.resource.id": f"prefect.flow-run.{run}"},
    }
    client.request("POST", "/events", json=[heartbeat]).raise_for_status()
