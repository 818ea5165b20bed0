"""`ups evaluate RUN --file FILE`."""

import argparse
import json
import sys
from pathlib import Path

from ups.commands.arguments import count
from ups.commands.tables import result_tables, show
from ups.pipeline.scoring import score_on_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", type=Path, help="directory below runs/")
    parser.add_argument(
        "--file",
        type=Path,
        required=True,
        help="HDF5 in PDEBench layout, on the model's grid or a finer one, with the model's frames or more",
    )
    parser.add_argument(
        "--rows", type=count, default=1000, help="score the first N trajectories (default 1000)"
    )
    parser.add_argument(
        "--problem",
        metavar="NAME",
        help="problem of the run that the file belongs to; needed only where its layout fits several",
    )
    parser.add_argument(
        "--at-file-resolution",
        action="store_true",
        help="decode and score on the file's own grid, where that is finer than the model's",
    )
    parser.add_argument("--json", action="store_true", help="print the records as JSON")


def execute(options: argparse.Namespace) -> None:
    """Print the result table or the records; progress goes to standard error."""
    table = score_on_file(
        options.run.absolute(),
        options.file,
        rows=options.rows,
        problem=options.problem,
        at_file_resolution=options.at_file_resolution,
        on_line=lambda line: print(line, file=sys.stderr),
    )
    if options.json:
        print(json.dumps(table, indent=2))
    else:
        for part in result_tables(table):
            show(part)
