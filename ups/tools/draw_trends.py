"""Page and picture of a night of the benchmark: `python -m ups.tools.draw_trends --work DIR`.

DIR/request.json: what `ups.report.trend_page.html` takes, and the paths "page" and "picture".
"""

import sys
from pathlib import Path
from typing import Any

from ups.artifacts.files import write_bytes, write_text
from ups.report.drawing import render
from ups.report.trend_figures import trends
from ups.report.trend_page import html, trends_of
from ups.tools.tool_main import tool_main


def answer(request: dict[str, Any]) -> None:
    """Write both."""
    write_bytes(Path(request["picture"]), render(trends(trends_of(request)), "png"))
    write_text(Path(request["page"]), html(request))


if __name__ == "__main__":
    sys.exit(tool_main("ups.tools.draw_trends", answer))
