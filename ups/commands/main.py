"""`ups`: parse, dispatch, and turn errors into messages and exit codes.

Only argparse is imported here; every command imports what it needs when it is called, so that `--help`
answers at once.
"""

import argparse
import importlib
import logging
import os
import re
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

from ups import __version__
from ups.errors import EXIT_OK, Interrupted, UpsError

_COMMANDS = {
    "validate": "check a configuration and print it complete",
    "doctor": "check this machine: versions, torch, GPU, Prefect server, disk, clock, limits",
    "plan": "show per stage HIT or MISS, why, and predicted bytes",
    "run": "run the whole chain without Prefect",
    "stage": "run one stage, and what it needs",
    "join": "take part, as one more machine, in a run with execution.nodes",
    "evaluate": "score a finished run on any file in PDEBench layout",
    "forecast": "forecast from the first frames of a file with a finished run",
    "export": "write the trained networks of a run as one file",
    "report": "write report.html of a run again",
    "runs": "list, filter, show and compare runs",
    "leaderboard": "finished runs by problem, the champion first",
    "sync": "send runs to W&B that were offline",
    "data": "list, fetch, generate and check trajectories",
    "cache": "look after artifacts: list, show, verify, explain, pin, clean up",
    "sweep": "train combinations of some values, rank them, run the whole chain of the best",
    "ab": "compare two configurations: speed, error and memory over paired seeds, with gates",
    "profile": "where the time of a training step goes, on one page and as a trace",
    "bench": "measure data generation, the cache, and the operator against its peers, on this machine",
}


def command_line(loaded: Collection[str] = tuple(_COMMANDS)) -> argparse.ArgumentParser:
    """The parser of `ups`; commands that are not loaded have a summary, but no arguments."""
    parser = argparse.ArgumentParser(
        prog="ups",
        description="Universal Physics Stack: from PDE data to an evaluated neural surrogate.",
        epilog="Exit codes: 0 ok, 1 a stage failed, 2 configuration, 3 missing data, disk or device, "
        "4 input/output, 5 integrity, 7 a gate, 8 an A/B gate or a regression, "
        "75 interrupted (the same command resumes).",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in _COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        if name in loaded:
            module = importlib.import_module(f"ups.commands.{name}")
            module.add_arguments(command)
            command.set_defaults(execute=module.execute)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code (see ups.errors)."""
    wanted = _first_word(sys.argv[1:] if arguments is None else arguments)
    parser = command_line(() if wanted is None else (wanted,))
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        options.execute(options)
    except UpsError as error:
        return _report(error)
    except KeyboardInterrupt:
        print("interrupted; the same command resumes", file=sys.stderr)
        return Interrupted.exit_code
    except BrokenPipeError:
        # The reader of our output has gone (`ups run ... | head`), and the run has been ended in order.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains at exit
        return Interrupted.exit_code
    except OSError as error:
        from ups.artifacts.files import storage_error

        return _report(storage_error(error, Path.cwd()))
    return EXIT_OK


def _first_word(arguments: Sequence[str]) -> str | None:
    return next((word for word in arguments if not word.startswith("-")), None)


def _report(error: UpsError) -> int:
    print(f"{_title(error)}: {error}", file=sys.stderr)
    return error.exit_code


def _title(error: UpsError) -> str:
    """The name of an error's class in words: "configuration error", "out of memory", "process killed"."""
    words = re.findall("[A-Z][a-z]+", type(error).__name__)
    if words[-1] == "Error" and len(words) > 2:
        words.pop()
    return " ".join(words).lower()
