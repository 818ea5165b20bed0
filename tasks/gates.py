"""The gates of a run, as a task: the run fails by it, and the stages stay as they are."""

from typing import Any

from prefect import task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from tasks.progress import series_key
from tasks.stage import Settings
from ups.commands.tables import gate_table, rows_of
from ups.pipeline.gates import Kind, require_passed
from ups.pipeline.run import Run


@task(
    name="gates",
    task_run_name="{kind}-gates",
    description="Hold what the run has found against its gates, and show the verdict beside this flow run.",
    cache_policy=NO_CACHE,
    persist_result=False,
)
def judge(run: Settings, kind: Kind, behind: Any) -> None:
    """Show the verdict.

    behind: what the task before has made, for the graph.

    Raises:
        GateError: a number does not pass.
    """
    del behind
    judged = Run.of(run)
    verdicts = judged.judge(kind)
    create_table_artifact(
        key=series_key(judged.configuration.name, f"{kind}-gates"),
        description=f"{kind.capitalize()} gates of run {judged.directory.name}",
        table=rows_of(gate_table([verdict.to_json() for verdict in verdicts])),
    )
    require_passed(verdicts)
