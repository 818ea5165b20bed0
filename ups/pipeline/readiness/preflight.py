"""Before money is spent: is there all that a run needs, and does every stage of it work."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ups.artifacts import Store
from ups.config import Configuration, load_configuration
from ups.errors import ConfigurationError, Interrupted, PreflightError, UpsError
from ups.pipeline.device import require_machine, resolve
from ups.pipeline.execute import Built
from ups.pipeline.graph import chain_to
from ups.pipeline.plan import PlannedStage, make_plan
from ups.pipeline.probe import Prediction, rehearse
from ups.pipeline.readiness import checks, doctor
from ups.pipeline.readiness.checks import Finding
from ups.pipeline.rebuild import NOTHING, Rebuild
from ups.pipeline.run import Output, bytes_to_write


@dataclass(frozen=True)
class Preflight:
    """What was found before a run.

    Attributes:
        configuration: resolved.
        plan: empty where it cannot be made.
    """

    configuration: Configuration
    findings: list[Finding]
    plan: list[PlannedStage]


def preflight(
    config: str | Path,
    overrides: Mapping[str, Any],
    root: Path,
    *,
    until: str | None = None,
    rebuild: Iterable[str] = (),
    asked: datetime | None = None,
) -> Preflight:
    """What can be known without starting a process; of a run that finds all its stages sealed, no more than that.

    until, rebuild, asked: as the run will have them, see `ups.pipeline.run.Run.start`.

    Raises:
        ConfigurationError: the configuration is wrong, or a stage that is not in the chain is to be built again.
    """
    configuration = load_configuration(config, overrides)
    chosen = Rebuild.of(rebuild, chain_to(until), asked)
    findings, plan = of_run(configuration, root, until=until, rebuild=chosen)
    if not plan or any(stage.verdict == "MISS" for stage in plan):
        first, *others = of_machine(root)
        findings = [first, *findings, *others]
    return Preflight(resolve(configuration), findings, plan)


def of_machine(root: Path) -> list[Finding]:
    """What every flow needs, whatever it does."""
    return [checks.of_root(root), *doctor.server(), *doctor.limits()]


def of_run(
    configuration: Configuration, root: Path, *, until: str | None = None, rebuild: Rebuild = NOTHING
) -> tuple[list[Finding], list[PlannedStage]]:
    """What a configuration asks of this machine, and its plan; an empty one where it cannot be made.

    Raises:
        ConfigurationError: it asks for what `auto` does not find here.
    """
    try:
        resolved = resolve(configuration)
        require_machine(resolved)
    except PreflightError as error:
        return [_problem("device", error)], []
    execution = resolved.execution
    words = f"{execution.ranks} x {execution.device}, {execution.threads} threads each"
    findings, store = [Finding("device", "ok", words)], Store(root)
    try:
        plan = make_plan(resolved, store, until, rebuild)
    except ConfigurationError:
        raise
    except UpsError as error:
        return [*findings, _problem("data", error)], []
    needed = bytes_to_write(store, resolved, plan)
    if not needed:
        return [*findings, Finding("stages", "ok", "all are sealed; nothing is to be built")], plan
    return [*findings, *checks.of_space(checks.free_bytes(root), needed)], plan


def try_stages(
    ready: Preflight, config: str | Path, overrides: Mapping[str, Any], root: Path, *, on_line: Output
) -> dict[str, Prediction]:
    """Each stage that is to be built, with few trajectories and steps, and what the whole will take at least.

    Raises:
        PreflightError: a stage does not work.
        ConfigurationError: the configuration cannot be tried.
    """
    tried: list[str] = []

    def on_stage(name: str, built: Built | None) -> None:
        if built is None:
            tried.append(name)

    try:
        return rehearse(
            config, overrides, ready.configuration, ready.plan, root, on_line=on_line, on_stage=on_stage
        )
    except (ConfigurationError, Interrupted):
        raise
    except UpsError as error:
        if not tried:
            raise
        raise PreflightError(f"stage {tried[-1]} does not work: {error}", where=str(config)) from error


def _problem(what: str, error: UpsError) -> Finding:
    found, _, fix = str(error).partition("\n  fix: ")
    return Finding(what, "problem", found, fix)
