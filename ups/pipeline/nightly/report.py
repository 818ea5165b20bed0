"""The page of a night and its picture, drawn by a process of the lower row."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from ups.pipeline.nightly.night import NightResult
from ups.pipeline.nightly.suite import measurements_of
from ups.pipeline.run import find_root
from ups.pipeline.tool_process import run_tool


def write_report(
    result: NightResult, path: Path, *, root: str | Path | None, on_line: Callable[[str], None]
) -> Path:
    """Write the page to `path`, and its picture beside it, whose path is returned.

    Raises:
        UpsError: the process failed.
    """
    picture = path.with_suffix(".png")
    measured = measurements_of(judgement.name for judgement in result.judgements)
    run_tool(
        "ups.tools.draw_trends",
        {
            "page": str(path.absolute()),
            "picture": str(picture.absolute()),
            "suite": f"{result.suite.name} {result.suite.digest}",
            "night": result.record,
            "before": result.before,
            "measurements": [asdict(measurement) for measurement in measured],
            "judgements": [judgement.to_json() for judgement in result.judgements],
            "changes": {name: asdict(change) for name, change in result.changes.items()},
            "regressions": result.regressions,
        },
        place=find_root(root) / "artifacts" / ".work",
        threads=1,
        on_line=on_line,
    )
    return picture
