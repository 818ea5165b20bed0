"""Fetch published files, or rows of them: the process behind `ups data fetch`.

No stage of the chain. Its request: {"datasets" (names), "address" (template), "rows" (ranges or null), "downloads",
"deadline_seconds"}; its summary: a record per dataset.
"""

import sys
from pathlib import Path
from typing import Any

from ups.problems.published import PUBLISHED
from ups.tools.fetching import fetch
from ups.tools.tool_main import tool_main


def fetch_files(request: dict[str, Any]) -> list[dict[str, Any]]:
    """Fetch and check."""
    rows = None if request["rows"] is None else [(start, stop) for start, stop in request["rows"]]
    records = []
    for name in request["datasets"]:
        path, sha256 = fetch(
            PUBLISHED[name],
            request["address"],
            rows,
            Path(request["downloads"]),
            deadline_seconds=request["deadline_seconds"],
        )
        records.append(
            {
                "dataset": name,
                "path": str(path),
                "bytes": path.stat().st_size,
                "sha256": sha256,
                "md5_checked": rows is None,
            }
        )
    return records


if __name__ == "__main__":
    sys.exit(tool_main("ups.tools.fetch_file", fetch_files))
