"""`ups bench frontier CONFIG`: error against seconds per trajectory of a trained configuration, its peers and our own solvers."""

import argparse
import json
from pathlib import Path
from typing import Any

from rich.table import Column, Table
from rich.text import Text

from ups.artifacts import Store
from ups.commands.arguments import add_configuration, add_root, count, read_configuration
from ups.commands.race import peer_names, positive_seconds
from ups.commands.tables import print_progress, show
from ups.pipeline.frontier import DIRECTORY, chosen_problem, measure, require_page, write_page
from ups.pipeline.run import find_root

_BATCHES = (1, 64)
_REPEATS = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "What an answer costs: error against seconds per trajectory on the test split, of the trained rows of a configuration, `ttc` "
        "among them, and of our own solvers on coarser grids, on the same device with the same threads, in one process; the solver's "
        "time at equal error, and the number of solves after which data and training are paid for. Prints a table, and writes JSON and a page with the "
        "plot. Nothing is trained unless --peers asks for it. Nothing else should be running."
    )
    add_configuration(parser)
    parser.add_argument("--problem", metavar="NAME", help="of a configuration with several")
    parser.add_argument(
        "--cells",
        type=_cells,
        metavar="N,N",
        help="cells per axis of the solvers' grids (default: a half, a quarter, ... of the truth's, six of them, 8 at least)",
    )
    parser.add_argument("--threads", type=count, help="of everybody (default: the configuration's)")
    parser.add_argument(
        "--repeats",
        type=count,
        default=_REPEATS,
        help=f"rounds in which all are timed in turns; the median counts (default {_REPEATS})",
    )
    parser.add_argument(
        "--eager",
        action="store_true",
        help="compile nothing: minutes less, and the solvers are slower than they could be",
    )
    parser.add_argument(
        "--peers",
        type=peer_names,
        default=[],
        metavar="NAMES",
        help="train peers too, see `ups bench peers`; what was trained is used again",
    )
    parser.add_argument(
        "--seconds",
        type=positive_seconds,
        help="of training for each peer (default: what the operator's took)",
    )
    parser.add_argument(
        "--report",
        type=Path,
        metavar="FILE",
        help=f"page, FILE.html, with the record beside it as .json (default: {DIRECTORY}/NAME-PROBLEM.html in the root)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_root(parser)


def execute(options: argparse.Namespace) -> None:
    """Measure, print, write."""
    if options.report is not None:
        require_page(options.report)
    configuration = read_configuration(options)
    problem = chosen_problem(configuration, options.problem)
    store = Store(find_root(options.root))
    record = measure(
        configuration,
        store,
        {
            "problem": problem,
            "cells": options.cells,
            "batches": list(_BATCHES),
            "repeats": options.repeats,
            "compile": not options.eager,
            "threads": options.threads or configuration.execution.threads,
            "peers": options.peers,
            "seconds": options.seconds,
        },
        on_line=print_progress,
    )
    page = options.report or store.root / DIRECTORY / f"{configuration.name}-{problem}.html"
    write_page(record, page, store, on_line=print_progress)
    if options.json:
        print(json.dumps(record, indent=2))
        return
    show(_rows_table(record))
    print()
    show(_comparison_table(record))
    print("", *(each["text"] for each in record["verdicts"]), page, sep="\n")


def _rows_table(record: dict[str, Any]) -> Table:
    points = " x ".join(map(str, record["resolution"]))
    title = (
        f"{record['dataset']} ({record['problem']}, data {record['data_version']}): trajectory relative L2 of {record['n_trajectories']} "
        f"test trajectories, {record['frames'] - 1} steps, {points} points, first frame not scored\n"
        f"seconds per trajectory, median of {record['repeats']} rounds; {record['device']}, {record['threads']} thread(s)"
    )
    table = Table(
        Column("row", no_wrap=True),
        *(Column(head, no_wrap=True, justify="right") for head in ("cells", "error", "±")),
        *(
            Column(head, no_wrap=True, justify="right")
            for batch in record["batches"]
            for head in (f"s, batch {batch}", "")
        ),
        title=Text(title),
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    for row in record["rows"]:
        taken = [row["seconds"][str(batch)] for batch in record["batches"]]
        table.add_row(
            f"{row['model']}{', the truth' if row['own_grid'] else ''}",
            str(row.get("cells", "")),
            _number(row["error"]),
            _number(row["standard_error"], 2),
            *(cell for each in taken for cell in (_number(each["median"]), each["way"])),
        )
    return table


def _comparison_table(record: dict[str, Any]) -> Table:
    stages = ", ".join(f"{each['stage']} {each['seconds']:.3g} s" for each in record["stages"])
    table = Table(
        *(Column(head, no_wrap=True) for head in ("row", "batch")),
        *(
            Column(head, no_wrap=True, justify="right")
            for head in ("s", "solver's s at its error", "times as fast", "made in s", "pays after solves")
        ),
        title=Text(f"Against the solver at equal error; made in: {stages}"),
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    for row in record["comparisons"]:
        bound = f"{row['bound']} " if row["bound"] else ""
        table.add_row(
            row["model"],
            str(row["batch"]),
            _number(row["seconds"]),
            f"{bound}{_number(row['solver_seconds'])}",
            f"{bound}{_number(row['speedup'])}",
            _number(row["invested_seconds"]),
            row["verdict"] if row["break_even"] is None else f"{row['break_even']:,}",
        )
    return table


def _number(value: float | None, digits: int = 3) -> str:
    return "" if value is None else f"{value:.{digits}g}"


def _cells(text: str) -> tuple[int, ...]:
    return tuple(count(part) for part in text.split(","))
