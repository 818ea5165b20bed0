"""Serves the reports below the root, for links in the UI: `python -m deployments.reports --port 4201`.

To this machine alone: whoever reaches the address reads all files of all runs, sweeps and nights.
"""

import argparse
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from ups.pipeline.nightly.night import NIGHTLY
from ups.pipeline.run import RUNS, find_root
from ups.pipeline.sweeps.sweep import SWEEPS

_SERVED = {RUNS, SWEEPS, NIGHTLY}


class Reports(SimpleHTTPRequestHandler):
    """Files of a root that belong to reports: neither artifacts nor, where the root is a checkout, what else lies there."""

    def send_head(self) -> BytesIO | BinaryIO | None:
        """Of all requests that read."""
        path = Path(self.translate_path(self.path)).relative_to(self.directory)
        if not _SERVED.intersection(path.parts[:1]):
            self.send_error(HTTPStatus.NOT_FOUND)
            return None
        return super().send_head()


def main() -> None:
    """Serve until it is told to end."""
    parser = argparse.ArgumentParser(
        prog="python -m deployments.reports",
        description="Serve the reports below UPS_ROOT to this machine, for links in the UI.",
    )
    parser.add_argument("--port", type=int, default=4201, help="of 127.0.0.1")
    options = parser.parse_args()
    handler = partial(Reports, directory=str(find_root(None)))
    with ThreadingHTTPServer(("127.0.0.1", options.port), handler) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
