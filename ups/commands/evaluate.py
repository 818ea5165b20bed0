"""`ups evaluate RUN --file FILE`."""

import argparse
import json
import sys
from pathlib import Path
from typing import get_args

from ups.artifacts.files import write_json
from ups.commands.arguments import add_source, count
from ups.commands.tables import result_tables, show
from ups.pipeline.device import Device
from ups.pipeline.score_run import score_on_file, scores_file
from ups.pipeline.surrogates import find_surrogate


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_source(parser)
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
    parser.add_argument(
        "--device", choices=get_args(Device), help="score on this device instead of the one of the run"
    )
    parser.add_argument("--json", action="store_true", help="print the records as JSON")


def execute(options: argparse.Namespace) -> None:
    """Print the result table or the records, and keep them with a run; progress goes to standard error."""
    source = find_surrogate(options.run, options.root)
    table = score_on_file(
        source,
        options.file,
        rows=options.rows,
        problem=options.problem,
        at_file_resolution=options.at_file_resolution,
        device=options.device,
        on_line=lambda line: print(line, file=sys.stderr),
    )
    if options.json:
        print(json.dumps(table, indent=2))
    else:
        for part in result_tables(table):
            show(part)
    if source.is_dir():
        chosen = [f"{options.rows}-rows", *([options.problem] if options.problem else [])]
        file_grid = ["file-grid"] if options.at_file_resolution else []
        kept = scores_file(source, options.file, *chosen, *file_grid)
        write_json(kept, table)
        print(f"kept in {kept}", file=sys.stderr)
