"""Score a finished run on a file, in a process of its own."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ups.artifacts.of_run import run_artifacts
from ups.config.load import load_configuration
from ups.config.schema import Execution
from ups.pipeline.device import Device, resolve_device, usable_cores
from ups.pipeline.tool_process import run_tool

SCORES = "scores"


def score_on_file(
    run: Path,
    file: Path,
    *,
    rows: int,
    problem: str | None = None,
    at_file_resolution: bool = False,
    device: Device | None = None,
    on_line: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Records of every model of a run on the first trajectories of a file.

    Args:
        problem: of the run, that the file belongs to; None: recognised by the file's layout.
        at_file_resolution: decode and score on the file's own grid, where that is finer than the model's.
        device: to score on; None: the run's. With no more threads than there are cores, whatever the run had.

    Raises:
        ConfigurationError, IntegrityError: see `run_artifacts`; or the run has no such problem, or the file may
            belong to several.
        DataError: the file is missing, malformed, or does not contain the model's grid and frames.
        PreflightError: there is no such device here.
    """
    with ExitStack() as leases:
        artifacts = run_artifacts(run, leases)
        configuration = load_configuration(run / "config.yaml")
        asked = configuration.execution
        # All other keys are of training steps, and of the machine that had them: a scoring has none.
        execution = Execution(
            device=resolve_device(device or asked.device, where="--device"),
            threads=min(asked.threads, usable_cores()),
        )
        configuration = configuration.model_copy(update={"execution": execution})
        summary = run_tool(
            "ups.tools.score_file",
            {
                "configuration": configuration.model_dump(mode="json"),
                "inputs": {stage: str(artifact.path) for stage, artifact in artifacts.items()},
                "file": str(file.absolute()),
                "rows": rows,
                "problem": problem,
                "at_file_resolution": at_file_resolution,
            },
            place=run / "logs",
            threads=execution.threads,
            on_line=on_line,
        )
    return summary["records"]


def scores_file(run: Path, file: Path, *options: str) -> Path:
    """Where a run keeps the records of its last scoring on a file of this name with these options."""
    return run / SCORES / f"{'-'.join([file.stem, *options])}.json"
