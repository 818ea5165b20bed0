"""`ups export RUN --out FILE`."""

import argparse
import sys
from pathlib import Path

from ups.commands.arguments import add_run, count
from ups.pipeline.surrogates import export_surrogate


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Write the trained networks of a run as one file. NAME.safetensors: all of them, for ups.load and "
        "ups forecast. NAME.pt2: the operator's forecast of one problem as a program of torch.export, which needs torch alone."
    )
    add_run(parser)
    parser.add_argument("--out", type=Path, required=True, help="NAME.safetensors or NAME.pt2")
    parser.add_argument("--problem", metavar="NAME", help="for .pt2, of a run that has several")
    parser.add_argument("--steps", type=count, help="for .pt2 (default: as many as in the training)")


def execute(options: argparse.Namespace) -> None:
    """Write the file, and say how large it is."""
    written = export_surrogate(
        options.run,
        options.root,
        options.out,
        problem=options.problem,
        steps=options.steps,
        on_line=lambda line: print(line, file=sys.stderr),
    )
    print(f"{options.out}: {written['bytes'] / 1e6:.2f} MB")
