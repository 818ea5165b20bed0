"""Entry point of a stage process."""

import argparse
import importlib
import logging
import sys
from pathlib import Path

from ups.artifacts.files import REQUEST_FILE, read_json
from ups.artifacts.identity import code_identity
from ups.errors import ConfigurationError, Interrupted, StageError
from ups.runtime.request import Request


def main() -> int:
    """Run the stage named on the command line in its work directory; see `ups.pipeline.supervise.outcome`."""
    parser = argparse.ArgumentParser(prog="python -m ups.stages", description=main.__doc__)
    parser.add_argument("stage")
    parser.add_argument("--work", type=Path, required=True)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    request = Request.read(arguments.work)
    if request.stage != arguments.stage:
        raise ConfigurationError(f"the request in {arguments.work} is for stage {request.stage}")
    planned = read_json(arguments.work / REQUEST_FILE)
    if code_identity(*planned["modules"]) != planned["derivation"]["code"]:
        raise StageError(
            "the code of this stage has changed since the run was planned; its result would be filed under "
            "another code's digest",
            where=arguments.stage,
            fix="run the same command again",
        )
    try:
        importlib.import_module(f"ups.stages.{arguments.stage}").run(request)
    except Interrupted as interruption:
        logging.getLogger(__name__).info("%s", interruption)
        return interruption.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
