"""Links from the UI to whole reports, where somebody serves them (`deployments/reports.py`)."""

import os
import socket
from pathlib import Path
from urllib.parse import quote

REPORTS_URL = "UPS_REPORTS_URL"
"""Environment variable: where the reports below the root are served, for example http://127.0.0.1:4201."""


def link_to(report: Path, root: Path, content: str) -> str:
    """A sentence with a link; a browser does not follow a page of a server to a file.

    content: what is in the report.
    """
    base = os.environ.get(REPORTS_URL)
    if base:
        return f"[Whole report: {content}]({base.rstrip('/')}/{quote(report.relative_to(root).as_posix())})"
    return f"The whole report is `{report}` on {socket.gethostname()}; set {REPORTS_URL} for the worker to have a link here."
