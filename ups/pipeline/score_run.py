"""Score a finished run, or an exported surrogate, on a file, in a process of its own."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ups.config.load import load_configuration
from ups.pipeline.device import Device, resolve_device, usable_cores
from ups.pipeline.tool_process import run_tool

SCORES = "scores"


def score_on_file(
    source: Path,
    file: Path,
    *,
    rows: int,
    problem: str | None = None,
    at_file_resolution: bool = False,
    device: Device | None = None,
    on_line: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Records of every model of a run or an exported surrogate on the first trajectories of a file.

    Args:
        source: see `ups.pipeline.surrogates.find_surrogate`.
        problem: of the run, that the file belongs to; None: recognised by the file's layout.
        at_file_resolution: decode and score on the file's own grid, where that is finer than the model's.
        device: to score on; None: the run's, of a file a GPU if there is one.

    Raises:
        ConfigurationError, IntegrityError: see `ups.evaluation.opening`; or the run has no such problem, or the file may
            belong to several.
        DataError: the file is missing, malformed, or does not contain the model's grid and frames.
        PreflightError: there is no such device here.
    """
    threads, place = usable_cores(), Path(tempfile.gettempdir())
    if source.is_dir():
        # All other keys are of training steps, and of the machine that had them: a scoring has none.
        asked = load_configuration(source / "config.yaml").execution
        device, threads, place = device or asked.device, min(threads, asked.threads), source / "logs"
    summary = run_tool(
        "ups.tools.score_file",
        {
            "source": str(source),
            "file": str(file.absolute()),
            "rows": rows,
            "problem": problem,
            "at_file_resolution": at_file_resolution,
            "device": resolve_device(device or "auto", where="--device"),
            "threads": threads,
        },
        place=place,
        threads=threads,
        on_line=on_line,
    )
    return summary["records"]


def scores_file(run: Path, file: Path, *options: str) -> Path:
    """Where a run keeps the records of its last scoring on a file of this name with these options."""
    return run / SCORES / f"{'-'.join([file.stem, *options])}.json"
