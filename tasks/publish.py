"""Results of a run in the Prefect UI."""

import base64
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from tasks.progress import series_key
from tasks.report_links import link_to
from tasks.retries import RETRIES
from tasks.stage import Settings
from ups.artifacts.files import read_json
from ups.commands.tables import result_table, rows_of, seed_tables
from ups.config import load_configuration
from ups.metric_labels import METRICS
from ups.pipeline.run import Pointer, Run

TABLES = {"accuracy": {"Accuracy", "PDEBench", "Physics", "Cost"}, "uncertainty": {"Uncertainty", "Compared"}}
"""Artifacts, and the groups whose metrics are their columns: as many as an artifact's page has room for."""
TABLES_OF_SEEDS = {
    "accuracy": {"Accuracy", "PDEBench"},
    "uncertainty": {"Uncertainty"},
    "physics-and-cost": {"Physics", "Compared", "Cost"},
}
"""The same where a cell has a mean and a range."""


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
    problems = list(dict.fromkeys(record["problem"] for record in records))
    for problem in problems:
        of_problem = [record for record in records if record["problem"] == problem]
        conventions = f"{result_table(of_problem).title}. Run {report.parent.name}"
        for name, groups in TABLES.items():
            rows = result_rows(of_problem, groups)
            create_table_artifact(
                key=_key(finished.configuration.name, name, problem if len(problems) > 1 else None),
                description=f"{name.capitalize()}. {conventions}",
                table=rows,
            )
    create_markdown_artifact(
        key=series_key(finished.configuration.name, "report"),
        description=f"Report of run {report.parent.name}",
        markdown=f"{link_to(report, finished.store.root, 'all figures, spectra, calibration, setup')}\n\n{_with_pictures(report.with_name('report.md'))}",
    )
    return str(report)


def _with_pictures(markdown: Path) -> str:
    """The text of a report with its pictures inside: the page of the server sees no file of the worker."""

    def inside(link: re.Match[str]) -> str:
        content = base64.b64encode((markdown.parent / link[1]).read_bytes()).decode()
        kind = {".png": "image/png", ".svg": "image/svg+xml"}[Path(link[1]).suffix]
        return f"](data:{kind};base64,{content})"

    return re.sub(r"\]\((figures/[^)]+)\)", inside, markdown.read_text())


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
        rows = rows_of(table)
        for what, groups in TABLES_OF_SEEDS.items():
            columns = ["model", *_headings(groups).values()]
            create_table_artifact(
                key=_key(name, f"seeds-{what}", problem if len(tables) > 1 else None),
                description=f"{what.capitalize()}. {table.title}",
                table=[{column: row[column] for column in columns if column in row} for row in rows],
            )


def _key(configuration: str, what: str, problem: str | None) -> str:
    return series_key(configuration, what if problem is None else f"{what}-{problem}")


def _headings(groups: Collection[str]) -> dict[str, str]:
    """Of the metrics of some groups, by metric."""
    return {metric.name: metric.heading for metric in METRICS if metric.group in groups and metric.heading}


def result_rows(records: list[dict[str, Any]], groups: Collection[str]) -> list[dict[str, Any]]:
    """One row per model, one column per metric of the groups, of the records of one problem.

    Three digits: about as many as the test split can tell apart. Of several fields the mean over all is shown. Models
    without any of the metrics are left out.
    """
    values = {(r["model"], r["metric"]): r["value"] for r in records if r["field"] is None}
    measured = {name: words for name, words in _headings(groups).items() if any(name == m for _, m in values)}
    rows = []
    for model in dict.fromkeys(model for model, _ in values):
        cells = {words: values.get((model, metric)) for metric, words in measured.items()}
        if any(value is not None for value in cells.values()):
            shown = {words: None if v is None else float(f"{v:.3g}") for words, v in cells.items()}
            rows.append({"model": model} | shown)
    return rows
