"""The first task of a flow: is there all that the run needs."""

from typing import Any, Literal

from prefect import get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from tasks.gpu import gpu
from tasks.progress import series_key
from ups.commands.predictions import predictions_table, total
from ups.commands.tables import rows_of
from ups.pipeline.readiness.checks import require_no_problem
from ups.pipeline.readiness.preflight import preflight as look
from ups.pipeline.readiness.preflight import try_stages
from ups.pipeline.run import find_root


@task(
    name="preflight",
    task_run_name="preflight",
    description="Configuration, device, disk, server and limits; with `dry` every stage is tried.",
    cache_policy=NO_CACHE,
    persist_result=False,
)
def preflight(
    config: str, overrides: dict[str, Any], thoroughness: Literal["quick", "dry"], until: str | None = None
) -> None:
    """See `ups.pipeline.readiness.preflight`. What is found is in the log, what a run will take an artifact.

    Raises:
        PreflightError: something is missing, or a stage does not work.
    """
    log, root = get_run_logger(), find_root(None)
    ready = look(config, overrides, root, until=until)
    for finding in ready.findings:
        if finding.verdict != "ok":
            log.warning("%s: %s; %s", finding.what, finding.found, finding.fix)
    require_no_problem(ready.findings, where=config)
    log.info("%s", "; ".join(f"{finding.what}: {finding.found}" for finding in ready.findings))
    if thoroughness == "dry":
        with gpu(needed=ready.configuration.execution.device == "cuda"):
            predictions = try_stages(ready, config, overrides, root, on_line=log.info)
        if predictions:
            create_table_artifact(
                key=series_key(ready.configuration.name, "preflight"),
                description=f"Every stage works. At least: {total(predictions, ready.configuration)}.",
                table=rows_of(predictions_table(predictions)),
            )
