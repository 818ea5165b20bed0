"""Arguments that several commands share."""

import argparse
from pathlib import Path
from typing import Any

from ups.config import Configuration, load_configuration
from ups.config.load import parse_overrides
from ups.config.schema import STAGES
from ups.pipeline.device import resolve
from ups.reference import SURROGATE, reference_models


def add_configuration(parser: argparse.ArgumentParser, **options: Any) -> None:
    """CONFIG, with further options of that argument, and --set."""
    parser.add_argument(
        "config", metavar="CONFIG", type=Path, help="YAML file, e.g. configs/burgers_demo.yaml", **options
    )
    add_overrides(parser)


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """--set."""
    parser.add_argument(
        "--set",
        dest="assignments",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="override a value, e.g. training.operator.learning_rate=3e-4; repeatable",
    )


def add_root(parser: argparse.ArgumentParser) -> None:
    """--root."""
    parser.add_argument(
        "--root", type=Path, help="where artifacts/ and runs/ are (default: $UPS_ROOT, else here)"
    )


def add_run(parser: argparse.ArgumentParser) -> None:
    """RUN and --root; `ups.pipeline.run.find_run` says where it is."""
    parser.add_argument(
        "run", metavar="RUN", type=Path, help="directory below runs/, by its path or its name"
    )
    add_root(parser)


def add_source(parser: argparse.ArgumentParser) -> None:
    """RUN, which may be a file that `ups export` wrote or a model that comes with the library, and --root."""
    parser.add_argument(
        "run",
        metavar="RUN",
        type=Path,
        help=f"directory below runs/, by its path or its name; an exported {SURROGATE}; or the name of a model that comes with the "
        f"library: {', '.join(reference_models())}",
    )
    add_root(parser)


def add_stage(parser: argparse.ArgumentParser, name: str, **options: Any) -> None:
    """An argument that names a stage; the hyphens of the Prefect UI are understood too."""
    parser.add_argument(name, choices=STAGES, type=lambda text: text.replace("-", "_"), **options)


def add_rebuild(parser: argparse.ArgumentParser) -> None:
    """--rebuild."""
    add_stage(
        parser,
        "--rebuild",
        metavar="STAGE",
        action="append",
        default=[],
        help="build it again although it is sealed, and what is behind it if its bytes change; repeatable",
    )


def count(text: str) -> int:
    """Type of an argument that is a whole number from 1 upwards."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 upwards")
    return int(text)


def read_configuration(options: argparse.Namespace) -> Configuration:
    """The resolved configuration that the arguments name.

    Raises:
        ConfigurationError, PreflightError: see `load_configuration` and `resolve`.
    """
    return resolve(load_configuration(options.config, parse_overrides(options.assignments)))
