"""Run a flow from the checkout: `python -m flows CONFIG [--set KEY=VALUE]`.

With PREFECT_API_URL set the run shows on that server; without it Prefect starts a temporary one.
"""

import argparse
import logging
import os
import sys
from pathlib import Path


def main() -> int:
    """Run the flow and end with the result table and the path of the report."""
    parser = argparse.ArgumentParser(prog="python -m flows", description=main.__doc__)
    parser.add_argument("config", metavar="CONFIG", help="e.g. configs/burgers_demo.yaml")
    parser.add_argument("--set", dest="assignments", metavar="KEY=VALUE", action="append", default=[])
    options = parser.parse_args()
    # The temporary server takes longer to start on a small machine than the 20 s it is given.
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("DO_NOT_TRACK", "1")

    from ups.artifacts.files import read_json
    from ups.commands.tables import result_table, show
    from ups.config.load import load_configuration, parse_overrides
    from ups.errors import UpsError

    try:
        overrides = parse_overrides(options.assignments)
        load_configuration(options.config, overrides)  # a typo needs no server to be found

        from flows.burgers_upt import burgers_upt

        report = Path(burgers_upt(options.config, overrides))
    except UpsError as error:
        logging.getLogger("flows").error("%s", error)
        return error.exit_code
    show(result_table(read_json(report.parent / "metrics.json")))
    sys.stdout.write(f"report: {report}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
