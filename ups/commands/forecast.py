"""`ups forecast RUN --file IN --out OUT`."""

import argparse
import sys
from pathlib import Path
from typing import get_args

from ups.commands.arguments import add_source, count
from ups.pipeline.device import Device
from ups.pipeline.surrogates import forecast_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Forecast from the first frame of every trajectory of a file. The same from Python: ups.load(RUN).forecast(...)."
    add_source(parser)
    parser.add_argument(
        "--file",
        type=Path,
        required=True,
        help="HDF5 in PDEBench layout; its first frames are read, and its parameters",
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="NAME.hdf5: trajectories in PDEBench layout, of an ensemble the mean; NAME.zarr: mean and spread, for xarray",
    )
    parser.add_argument("--rows", type=count, default=1000, help="of the first N trajectories (default 1000)")
    parser.add_argument(
        "--steps", type=count, help="after the first frame (default: as many as in the training)"
    )
    parser.add_argument("--model", default="operator", help="a row of the result table (default operator)")
    parser.add_argument("--members", type=count, help="of an ensemble (default: as in evaluation)")
    parser.add_argument("--seed", type=int, default=0, help="of an ensemble's noise (default 0)")
    parser.add_argument("--problem", metavar="NAME", help="of the run, where it has several")
    parser.add_argument("--device", choices=get_args(Device), default="auto", help="default auto")


def execute(options: argparse.Namespace) -> None:
    """Write the forecast, and say what."""
    written = forecast_file(
        options.run,
        options.root,
        options.file,
        options.out,
        rows=options.rows,
        steps=options.steps,
        model=options.model,
        members=options.members,
        seed=options.seed,
        problem=options.problem,
        device=options.device,
        on_line=lambda line: print(line, file=sys.stderr),
    )
    print(f"{options.out}: {written['rows']} trajectories, {written['steps'] or 1} steps, {options.model}")
