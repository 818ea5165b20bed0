"""The report of a sweep, written by a process that may draw."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ups.pipeline.sweeps.sweep import REPORT, SweepRun
from ups.pipeline.tool_process import run_tool


def write_sweep_report(run: SweepRun, rows: list[dict[str, Any]], *, on_line: Callable[[str], None]) -> Path:
    """(Re)write the report of a sweep; the path of the file.

    rows: see `SweepRun.ranking`.

    Raises:
        UpsError: its process failed.
    """
    report = run.directory / REPORT
    run_tool(
        "ups.tools.sweep_report",
        {
            "report": str(report),
            "name": run.file.stem,
            "sweep": run.name,
            "stage": run.sweep.rank_by,
            "base": run.members[0].config,
            "keys": run.sweep.keys,
            "seeds": run.sweep.seeds,
            "finalists": run.sweep.finalists,
            "stop": None if run.sweep.stop is None else run.sweep.stop.model_dump(exclude_none=True),
            "rows": rows,
        },
        place=run.directory,
        threads=1,
        on_line=on_line,
    )
    return report
