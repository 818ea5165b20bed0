"""The first task of a flow: is there all that the run needs."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

from prefect import get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from tasks.gpu import gpu
from tasks.progress import series_key
from ups.commands.predictions import predictions_table, total
from ups.commands.tables import rows_of
from ups.config import load_configuration
from ups.pipeline.readiness.checks import Finding, require_no_problem
from ups.pipeline.readiness.preflight import of_machine, try_stages
from ups.pipeline.readiness.preflight import preflight as look
from ups.pipeline.run import find_root, overrides_by_seed


@task(
    name="preflight",
    task_run_name="preflight",
    description="Configuration, device, disk, server and limits; with `dry` every stage is tried.",
    cache_policy=NO_CACHE,
    persist_result=False,
)
def preflight(
    config: str,
    overrides: dict[str, Any],
    thoroughness: Literal["quick", "dry"],
    until: str | None = None,
    rebuild: Sequence[str] = (),
    asked: str | None = None,
) -> None:
    """See `ups.pipeline.readiness.preflight`. What is found is in the log, what a run will take an artifact.

    overrides: those of all seeds; the first is looked at. asked: when, in ISO 8601.

    Raises:
        PreflightError: something is missing, or a stage does not work.
    """
    log, root = get_run_logger(), find_root(None)
    first = overrides_by_seed(config, overrides)[0]
    since = None if asked is None else datetime.fromisoformat(asked)
    ready = look(config, first, root, until=until, rebuild=rebuild, asked=since)
    _tell(ready.findings, where=config)
    if thoroughness == "dry":
        with gpu(needed=ready.configuration.execution.device == "cuda"):
            predictions = try_stages(ready, config, first, root, on_line=log.info)
        if predictions:
            create_table_artifact(
                key=series_key(ready.configuration.name, "preflight"),
                description=f"Every stage works. At least: {total(predictions, load_configuration(config, overrides))}.",
                table=rows_of(predictions_table(predictions)),
            )


@task(
    name="preflight-of-machine",
    task_run_name="preflight",
    description="Root, server and limits.",
    cache_policy=NO_CACHE,
    persist_result=False,
)
def preflight_of_machine(what: str) -> None:
    """Of a flow without a configuration of its own.

    what: the flow is about, for the message.

    Raises:
        PreflightError: something is missing.
    """
    _tell(of_machine(find_root(None)), where=what)


def _tell(findings: list[Finding], *, where: str) -> None:
    log = get_run_logger()
    for finding in findings:
        if finding.verdict != "ok":
            log.warning("%s: %s; %s", finding.what, finding.found, finding.fix)
    require_no_problem(findings, where=where)
    log.info("%s", "; ".join(f"{finding.what}: {finding.found}" for finding in findings))
