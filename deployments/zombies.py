"""The automation that finds flow runs which ended without a word: their process and its worker are both gone.

A worker that lives tells of a flow's process that was killed, within seconds. Where both are gone, as after a loss of power,
the run would stay Running for ever, and a sweep or a schedule wait for it. Flows say every 30 s that they are alive
(`flows.heartbeat_frequency` in pyproject.toml).

A server that was away hears nothing either: a run that lives is taken for lost where the server was away for longer than
SILENCE. It goes on all the same, and says Completed when it is. Hence six heartbeats and not two: a server that is
restarted takes less than a minute.
"""

from datetime import timedelta

from prefect.automations import AutomationCore
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification

SILENCE = timedelta(minutes=3)
HEARTBEAT = "prefect.flow-run.heartbeat"
# Whatever may follow the last sign of life: a run that waits for somebody is none that was lost.
_RESTS = ("Completed", "Failed", "Cancelled", "Crashed", "Paused", "Suspended", "AwaitingRetry", "Scheduled")

AUTOMATION = AutomationCore(
    name="ups: crash runs without heartbeat",
    description="A flow run that has not been heard of for three minutes has lost its process and its worker.",
    trigger=EventTrigger(
        posture=Posture.Proactive,
        match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
        for_each={"prefect.resource.id"},
        after={HEARTBEAT},
        expect={HEARTBEAT, *(f"prefect.flow-run.{state}" for state in _RESTS)},
        threshold=1,
        within=SILENCE,
    ),
    actions=[
        ChangeFlowRunState(
            name=None,
            state=StateType.CRASHED,
            force=False,
            message="No heartbeat for three minutes: its process and its worker are gone. Retry resumes from the last checkpoint.",
        )
    ],
)


def register(client: SyncPrefectClient, automation: AutomationCore = AUTOMATION) -> str:
    """Create it, or bring the one of its name up to date; returns what was done.

    One that somebody has switched off stays off.
    """
    found = client.read_automations_by_name(automation.name)
    if not found:
        client.create_automation(automation)
        return "created"
    enabled = found[0].enabled
    client.update_automation(found[0].id, automation.model_copy(update={"enabled": enabled}))
    return "up to date" if enabled else "up to date, and switched off"
