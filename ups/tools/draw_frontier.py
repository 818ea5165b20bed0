"""The page of a frontier: `python -m ups.tools.draw_frontier --work DIR`.

DIR/request.json: {"record": what `ups.benchmarks.frontier.measure_frontier` returns}.
"""

import sys
from typing import Any

from ups.report.frontier_page import html
from ups.tools.tool_main import tool_main


def answer(request: dict[str, Any]) -> str:
    """The page."""
    return html(request["record"])


if __name__ == "__main__":
    sys.exit(tool_main("ups.tools.draw_frontier", answer))
