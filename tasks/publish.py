"""Results of a run in the Prefect UI."""

from pathlib import Path
from typing import Any

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from tasks.progress import series_key
from tasks.stage import RETRIES, Settings
from ups.artifacts.files import read_json
from ups.commands.tables import result_tables, rows_of, seed_tables
from ups.config import load_configuration
from ups.metric_labels import HEADINGS
from ups.pipeline.run import Pointer, Run


@task(
    name="publish",
    task_run_name="publish",
    description="Write the report, and show metrics and report beside this flow run.",
    cache_policy=NO_CACHE,
    persist_result=False,
    **RETRIES,
)
def publish(run: Settings, table: Pointer) -> str:
    """Write the report and make the artifacts of the UI; returns the path of report.html.

    Never cached, so that a run whose stages are all cached shows its results too.
    """
    finished = Run.of(run, [table])
    report = finished.report(on_line=get_run_logger().info)
    records = read_json(report.parent / "metrics.json")
    titles = [str(table.title) for table in result_tables(records)]
    create_table_artifact(
        key=series_key(finished.configuration.name, "metrics"),
        description=f"{'. '.join(titles)}. Run {report.parent.name}",
        table=result_rows(records),
    )
    create_markdown_artifact(
        key=series_key(finished.configuration.name, "report"),
        description=f"Report of run {report.parent.name}",
        markdown=f"{(report.parent / 'report.md').read_text()}\n\nFull report: `{report}`\n",
    )
    return str(report)


@task(
    name="publish-seeds",
    task_run_name="publish-seeds",
    description="Show the results of all seeds, each with its range.",
    cache_policy=NO_CACHE,
    persist_result=False,
    **RETRIES,
)
def publish_seeds(reports: list[str]) -> None:
    """Make a table artifact for each problem, of runs that differ in their seeds.

    reports: path of each run's report.html.
    """
    directories = [Path(report).parent for report in reports]
    name = load_configuration(directories[0] / "config.yaml").name
    tables = seed_tables([read_json(directory / "metrics.json") for directory in directories])
    for problem, table in tables.items():
        key = series_key(name, f"seeds-{problem}" if len(tables) > 1 else "seeds")
        create_table_artifact(key=key, description=str(table.title), table=rows_of(table))


def result_rows(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per problem and model, one column per metric, of the records of a metrics.json.

    Four digits: more than the test split can tell apart, and a column that can be read. Of several fields the
    mean over all is shown, and the problem only where there are several.
    """
    over_fields = [record for record in records if record["field"] is None]
    values = {(r["problem"], r["model"], r["metric"]): r["value"] for r in over_fields}
    measured = [metric for metric in HEADINGS if any(metric == known for _, _, known in values)]
    several = len({record["problem"] for record in records}) > 1
    rows = []
    for problem, model in dict.fromkeys((record["problem"], record["model"]) for record in over_fields):
        cells = {metric: values.get((problem, model, metric)) for metric in measured}
        row = {HEADINGS[metric]: None if v is None else float(f"{v:.4g}") for metric, v in cells.items()}
        rows.append(({"problem": problem} if several else {}) | {"model": model} | row)
    return rows
