"""The child's side of a tool process: its request in, its outcome out."""

import argparse
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ups.artifacts.files import OUTCOME_FILE, REQUEST_FILE, read_json, write_json


def tool_main(module: str, answer: Callable[[dict[str, Any]], Any]) -> int:
    """Read DIR/request.json of `--work DIR`, and write what `answer` makes of it to DIR/outcome.json."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=answer.__doc__)
    parser.add_argument("--work", type=Path, required=True, help="directory with request.json")
    work: Path = parser.parse_args().work
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    summary = answer(read_json(work / REQUEST_FILE))
    write_json(work / OUTCOME_FILE, {"summary": summary})
    return 0
