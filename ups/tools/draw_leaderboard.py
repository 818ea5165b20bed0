"""The page of the leaderboard: `python -m ups.tools.draw_leaderboard --work DIR`.

DIR/request.json: what `ups.report.leaderboard_page.html` takes.
"""

import sys
from pathlib import Path
from typing import Any

from ups.report.leaderboard_page import html
from ups.tools.tool_main import tool_main


def answer(request: dict[str, Any]) -> str:
    """The page."""
    return html(
        request["boards"], request["metric"], root=Path(request["root"]), beside=Path(request["beside"])
    )


if __name__ == "__main__":
    sys.exit(tool_main("ups.tools.draw_leaderboard", answer))
