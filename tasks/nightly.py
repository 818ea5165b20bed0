"""The nightly benchmark as tasks: measure and judge, and show what was found."""

import base64
from typing import Any

from prefect import get_run_logger, task
from prefect.artifacts import create_image_artifact, create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.events import emit_event
from prefect.runtime import flow_run

from tasks.gpu import gpu
from tasks.progress import series_key
from tasks.report_links import link_to
from ups.commands.nightly import verdict_table
from ups.commands.tables import rows_of
from ups.pipeline.device import resolve_device
from ups.pipeline.nightly.night import NightResult, default_history, run_night
from ups.pipeline.nightly.report import write_report
from ups.pipeline.nightly.suite import FULL, QUICK
from ups.pipeline.run import find_root

EVENT = "ups.benchmark.regressed"


@task(name="measure", task_run_name="measure", cache_policy=NO_CACHE, persist_result=False)
def measure(
    quick: bool, only: list[str], further: dict[str, list[float]]
) -> Any:  # a night; nobody else reads it
    """Measure a night, compare it with those before, and add it to the history below UPS_ROOT.

    further: repeats of what the flow has measured itself.

    Raises:
        UpsError: see `ups.pipeline.nightly.night.run_night`.
    """
    suite = QUICK if quick else FULL
    with gpu(needed=resolve_device("auto", where="nightly benchmark") == "cuda"):
        return run_night(
            suite,
            default_history(suite, None),
            root=None,
            on_line=get_run_logger().info,
            only=only,
            further=further,
        )


@task(name="show", task_run_name="show", cache_policy=NO_CACHE, persist_result=False)
def show(result: NightResult) -> None:
    """Report, and artifacts beside the flow run; of a night that is worse, the event and a failure.

    Raises:
        RegressionError: something is worse.
    """
    report = result.history.with_suffix(".html")
    picture = write_report(result, report, root=None, on_line=get_run_logger().info)
    table = verdict_table(result)
    name = f"nightly-{result.suite.name}"
    create_table_artifact(
        key=series_key(name, "verdicts"), description=str(table.title), table=rows_of(table)
    )
    image = base64.b64encode(picture.read_bytes()).decode()
    create_image_artifact(
        f"data:image/png;base64,{image}", key=series_key(name, "trends"), description="A point is a night."
    )
    found = result.regressions
    lines = [f"- {sentence}" for sentence in found] or ["Nothing is worse than in the nights before."]
    create_markdown_artifact(
        "\n".join(["# Nightly benchmark", "", *lines, "", link_to(report, find_root(None), "all trends")]),
        key=series_key(name, "report"),
        description=f"Night of {result.record['date']}",
    )
    if found:
        emit_event(
            EVENT,
            resource={
                "prefect.resource.id": f"ups.benchmark.{result.suite.name}",
                "prefect.resource.name": "nightly benchmark",
            },
            related=[
                {
                    "prefect.resource.id": f"prefect.flow-run.{flow_run.get_id()}",
                    "prefect.resource.role": "flow-run",
                }
            ],
            payload={
                "regressions": found,
                "measurements": sorted(result.changes),
                "commit": result.record["commit"],
                "report": str(report),
            },
        )
    result.require_no_regression()
