"""Write the report of a sweep: `python -m ups.tools.sweep_report --work DIR`, see `ups.pipeline.sweeps.report`."""

import sys
from pathlib import Path
from typing import Any

from ups.artifacts.files import write_text
from ups.report.sweep_page import html
from ups.tools.tool_main import tool_main


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Write the page of a sweep."""
    write_text(Path(request["report"]), html(request))
    return {}


if __name__ == "__main__":
    sys.exit(tool_main("ups.tools.sweep_report", answer))
