"""Results of a run in the Prefect UI."""

from typing import Any

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from tasks.stage import Pointer
from ups.artifacts.files import read_json
from ups.pipeline.run import Run


@task(name="publish", cache_policy=NO_CACHE, persist_result=False)
def publish(run: Run, table: Pointer) -> str:
    """Write the report, and show metrics and report as artifacts of this flow run.

    Never cached, so that a run whose stages are all cached shows its results too.
    """
    del table
    report = run.report(on_line=get_run_logger().info)
    create_table_artifact(
        table=result_rows(read_json(run.directory / "metrics.json")),
        key="metrics",
        description=f"Test split, decoded fields, full rollouts: {run.directory.name}",
    )
    create_markdown_artifact(
        markdown=(run.directory / "report.md").read_text() + f"\n\nFull report: `{report}`\n",
        key="report",
        description=run.directory.name,
    )
    return str(report)


def result_rows(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per model, one column per metric, of the records of a metrics.json."""
    rows: dict[str, dict[str, Any]] = {}
    for record in records:
        row = rows.setdefault(record["model"], {"model": record["model"]})
        value = record["value"]
        row[record["metric"]] = None if value is None else float(f"{value:.4g}")
    return list(rows.values())
