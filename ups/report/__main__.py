"""Write report.html and report.md of a run: `python -m ups.report RUN --work DIR`."""

import argparse
import sys
from pathlib import Path

from ups.artifacts.files import OUTCOME_FILE, write_json, write_text
from ups.report.figure_cache import bring_figures
from ups.report.page import html, markdown


def main() -> int:
    """Write the report of a finished run, then DIR/outcome.json; see `ups.pipeline.supervise.outcome`."""
    parser = argparse.ArgumentParser(prog="python -m ups.report", description=main.__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="directory below runs/")
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="where outcome.json goes")
    arguments = parser.parse_args()
    (arguments.work / OUTCOME_FILE).unlink(missing_ok=True)  # an earlier report's
    bring_figures(arguments.run)
    write_text(arguments.run / "report.md", markdown(arguments.run))
    write_text(arguments.run / "report.html", html(arguments.run))
    write_json(arguments.work / OUTCOME_FILE, {"summary": {}})
    return 0


if __name__ == "__main__":
    sys.exit(main())
