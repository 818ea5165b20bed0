"""`ups data list|info|fetch|generate|check`."""

import argparse
import difflib
import json
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from rich.table import Column, Table
from rich.text import Text

from ups.artifacts.files import read_json
from ups.artifacts.input_files import recorded_content
from ups.commands.arguments import add_root, count
from ups.commands.tables import print_progress, show
from ups.config.data import TAGGED, PublishedData
from ups.config.load import describe_problems, parse_overrides, parse_value
from ups.errors import ConfigurationError, DataError, IntegrityError
from ups.pipeline.device import resolve_device
from ups.pipeline.run import find_root
from ups.pipeline.tool_process import run_tool
from ups.problems import PROBLEMS
from ups.problems.generated import SPLITS
from ups.problems.published import DOWNLOADS, PUBLISHED, PublishedFile

_ADDRESS = PublishedData.model_fields["address"].default
_HOURS = PublishedData.model_fields["deadline_hours"].default


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    listing = actions.add_parser("list", help="list PDEBench's published files, and which are here")
    listing.add_argument("--problem", choices=list(PROBLEMS), help="of one problem only")

    informing = actions.add_parser("info", help="everything known of a published file or of a problem")
    informing.add_argument(
        "name", metavar="NAME", help=f"a file of `ups data list`, or {', '.join(PROBLEMS)}"
    )

    fetching = actions.add_parser(
        "fetch",
        help="download published files, or only some rows of them, checked",
        description="Download published files into ROOT/downloads. A cut or killed download goes on where it was. "
        "A whole file must have its published MD5; of rows, every fetched range gets a sha256 of its own.",
    )
    fetching.add_argument("datasets", metavar="NAME", nargs="+", help="a name of `ups data list`")
    fetching.add_argument(
        "--rows",
        metavar="START:STOP",
        type=_range,
        action="append",
        help="only these rows, by byte range; repeatable. Rows before 1000 are PDEBench's test set",
    )
    fetching.add_argument(
        "--address",
        default=_ADDRESS,
        help="where the files are: {id} is DaRUS's number, {name} the file's name; https, http or file "
        "(default: %(default)s)",
    )
    fetching.add_argument(
        "--deadline", metavar="HOURS", type=float, default=_HOURS, help="in all (default: 6)"
    )

    generating = actions.add_parser(
        "generate",
        help="solve an equation and write a file in PDEBench's layout",
        description="Solve an equation for PDEBench's distribution of initial states (compressible1d: our own) and "
        "write a file in PDEBench's layout. Settings are those of the `data` section with source `generated`, "
        "e.g. ups data generate burgers1d out.hdf5 --rows 100 --set nu=0.01",
    )
    generating.add_argument("equation", choices=list(PROBLEMS))
    generating.add_argument("output", metavar="FILE", type=Path)
    generating.add_argument("--rows", type=count, default=100, help="trajectories (default 100)")
    generating.add_argument(
        "--split",
        choices=SPLITS,
        help="the first of this split of a run with the same settings and seed (default: the first of all splits in turn)",
    )
    generating.add_argument(
        "--set",
        dest="assignments",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="a setting of the equation: nu, beta, eta, resolution, frames, frame_interval, seed ...; repeatable",
    )
    generating.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    generating.add_argument("--threads", type=count, default=2, help="blocks solved at a time (default 2)")

    checking = actions.add_parser(
        "check",
        help="check files: layout, values, sums, conservation, and against our own solver",
        description="Check files in PDEBench's layout. Exit code 3 if one is malformed, 5 if one does not have the "
        "sum it should have.",
    )
    checking.add_argument("files", metavar="FILE", nargs="+", type=Path)
    checking.add_argument(
        "--problem", choices=list(PROBLEMS), help="of files that neither name nor content give away"
    )
    checking.add_argument("--boundary", help="of files that do not store it")
    checking.add_argument(
        "--rows", type=count, help="check the values of the first N rows only (default: all)"
    )
    checking.add_argument("--threads", type=count, default=2)

    for action in (listing, informing, fetching, generating, checking):
        action.add_argument("--json", action="store_true", help="print JSON")
        add_root(action)


def execute(options: argparse.Namespace) -> None:
    """Dispatch."""
    {"list": _list, "info": _inform, "fetch": _fetch, "generate": _generate, "check": _check}[options.action](
        options
    )


def _list(options: argparse.Namespace) -> None:
    downloads = find_root(options.root) / DOWNLOADS
    files = [file for file in PUBLISHED.values() if options.problem in (None, file.problem_name)]
    if options.json:
        print(json.dumps([_record(file, downloads) for file in files], indent=2))
        return
    names = ("name", "problem", "parameters", "boundary", "rows x frames x points", "GB", "here")
    table = Table(*(Column(name, no_wrap=True) for name in names), box=None, pad_edge=False)
    for file in files:
        table.add_row(
            file.name,
            file.problem_name,
            _parameters(file),
            file.boundary,
            f"{file.rows} x {file.frames} x {_points(file)}",
            "" if file.bytes is None else f"{file.bytes / 1e9:.2f}",
            Text(", ".join(_here(file, downloads))),
        )
    show(table)
    print(f"{len(files)} files; DOI 10.18419/darus-2986, CC-BY-4.0. Downloads are kept in {downloads}")


def _inform(options: argparse.Namespace) -> None:
    downloads = find_root(options.root) / DOWNLOADS
    if options.name in PROBLEMS:
        record = _problem_record(options.name)
    else:
        file = PUBLISHED[_dataset(options.name)]
        record = _record(file, downloads) | {"equation": _problem_record(file.problem_name)}
    if options.json:
        print(json.dumps(record, indent=2))
    else:
        print(_readable(record), end="")


def _fetch(options: argparse.Namespace) -> None:
    downloads = find_root(options.root) / DOWNLOADS
    records = run_tool(
        "ups.tools.fetch_file",
        {
            "datasets": [_dataset(name) for name in options.datasets],
            "address": options.address,
            "rows": options.rows,
            "downloads": str(downloads),
            "deadline_seconds": options.deadline * 3600,
        },
        place=downloads,
        threads=1,
        on_line=print_progress,
    )
    if options.json:
        print(json.dumps(records, indent=2))
        return
    for record in records:
        checked = "MD5 as published" if record["md5_checked"] else f"sha256 {record['sha256']}"
        print(f"{record['path']}  {record['bytes'] / 1e6:.1f} MB  {checked}")


def _generate(options: argparse.Namespace) -> None:
    section = f"generated {options.equation}"
    settings: dict[str, Any] = {
        "source": "generated",
        "equation": options.equation,
        # Splits belong to a run, not to a file; the section has them, and this command has no use for them.
        "trajectories": {"train": options.rows, "validation": 1, "test": 1},
    }
    # As PDEBench's files, so that only the parameter is asked for.
    settings |= PROBLEMS[options.equation].file_sizes
    for key, value in parse_overrides(options.assignments).items():
        settings[key] = parse_value(key, value)
    settings.setdefault("solver_resolution", settings.get("resolution"))
    try:
        data = TAGGED[section].model_validate(settings)
    except ValidationError as error:
        raise ConfigurationError(
            "\n  ".join(["settings are not valid", *describe_problems(error, inside=("data", section))]),
            where=f"--set of {options.equation}",
        ) from None
    output = options.output.absolute()
    record = run_tool(
        "ups.tools.generate_file",
        {
            "data": data.model_dump(mode="json"),
            "rows": options.rows,
            "split": options.split,
            "output": str(output),
            "device": resolve_device(options.device, where="--device"),
            "threads": options.threads,
        },
        place=output.parent,
        threads=1,
        on_line=print_progress,
    )
    if options.json:
        print(json.dumps(record, indent=2))
    else:
        print(
            f"{record['path']}  {record['rows']} rows  {record['bytes'] / 1e6:.1f} MB  sha256 {record['sha256']}"
        )


def _check(options: argparse.Namespace) -> None:
    root = find_root(options.root)
    records = run_tool(
        "ups.tools.check_file",
        {
            "files": [str(path.resolve()) for path in options.files],
            "problem": options.problem,
            "parameters": None,
            "boundary": options.boundary,
            "rows": options.rows,
            "known": _known_sums(options.files, root),
        },
        place=root / DOWNLOADS,
        threads=options.threads,
        on_line=print_progress,
    )
    if options.json:
        print(json.dumps(records, indent=2))
    else:
        show(_check_table(records))
        for record in records:
            if record.get("error"):
                print(f"{Path(record['path']).name}: {record['error']['type']}: {record['error']['message']}")
    wrong = [record for record in records if record.get("error")]
    if not wrong:
        return
    kinds = {record["error"]["type"] for record in wrong}
    kind = IntegrityError if kinds == {"IntegrityError"} else DataError
    files = ", ".join(Path(record["path"]).name for record in wrong)
    raise kind(f"{len(wrong)} of {len(records)} files failed the check", where=files)


def _check_table(records: list[dict[str, Any]]) -> Table:
    """One row per file; everything else is in the JSON."""
    left = ("file", "verdict", "problem", "rows x frames x points", "parameters")
    right = ("bad rows", "mean drifts by", "from our solver", "expected")
    table = Table(
        *(Column(name, no_wrap=True) for name in left),
        *(Column(name, no_wrap=True, justify="right") for name in right),
        Column("MD5", no_wrap=True),
        box=None,
        pad_edge=False,
    )
    for record in records:
        name = Text(Path(record["path"]).name)
        if record.get("error"):
            table.add_row(name, Text("REFUSED", style="red"))
            continue
        shape = [str(record["rows"]), str(record["frames"]), *map(str, record["grid"])]
        parameters = ", ".join(f"{key} {value:g}" for key, value in record["parameters"].items())
        drift = record["conservation"]
        distance = record["solver_distance"]
        measured = "mean" in distance
        expected = distance.get("expected")  # a sentence, where nothing was measured at this parameter
        published = record["md5_as_published"]
        table.add_row(
            name,
            Text("ok", style="green") if not record["bad_rows"]["count"] else Text("BAD VALUES", style="red"),
            record["problem"],
            " x ".join(shape),
            f"{parameters}, {record['boundary']}",
            str(record["bad_rows"]["count"]),
            f"{max(field['largest'] for field in drift.values()):.1e}" if isinstance(drift, dict) else "",
            f"{distance['mean']:.1e}" if measured else "",
            f"{expected['mean']:.1e}" if isinstance(expected, dict) else "",
            "" if published is None else ("as published" if published else "NOT AS PUBLISHED"),
        )
    return table


def _known_sums(files: list[Path], root: Path) -> dict[str, str]:
    """sha256 of files that were used before: as fetched, or as first read by a run."""
    known = {}
    for path in files:
        record = path.with_suffix(".json")
        if record.is_file():
            known[str(path.resolve())] = read_json(record)["sha256"]
        elif (recorded := recorded_content(path, root)) is not None:
            known[str(path.resolve())] = recorded
    return known


def _readable(record: dict[str, Any]) -> str:
    return yaml.safe_dump(record, sort_keys=False, width=110, allow_unicode=True, default_flow_style=None)


def _problem_record(name: str) -> dict[str, Any]:
    problem = PROBLEMS[name]
    fields = {"fields": problem.fields, "conserved_fields": problem.conserved_fields}
    return {
        "problem": problem.name,
        "title": problem.title,
        "equation": problem.equation,
        "domain": {axis: list(limits) for axis, limits in zip(problem.axes, problem.domain, strict=True)},
        "boundaries": list(problem.boundaries),
        "parameters": {p.name: f"{p.meaning} (attribute {p.attribute})" for p in problem.parameters},
        **{key: {field.name: field.unit for field in values} for key, values in fields.items() if values},
        "arrays": {array.key: list(array.axes) for array in problem.arrays},
        "map": problem.is_map,
    }


def _record(file: PublishedFile, downloads: Path) -> dict[str, Any]:
    return {
        "name": file.name,
        "problem": file.problem_name,
        "parameters": file.parameters,
        "boundary": file.boundary,
        "rows": file.rows,
        "frames": file.frames,
        "points": _points(file),
        "bytes": file.bytes,
        "md5": file.md5,
        "darus_id": file.file_id,
        "here": _here(file, downloads),
    }


def _here(file: PublishedFile, downloads: Path) -> list[str]:
    """What of a file is in the downloads: "whole", "part of it", or ranges of rows."""
    here = ["whole"] if (downloads / file.file_name).is_file() else []
    if (downloads / f".{file.file_name}.partial").is_file():
        here.append("part of it")
    prefix, suffix = f"{file.name}.rows-", ".hdf5"
    rows = sorted(path.name for path in downloads.glob(f"{prefix}*{suffix}"))
    return here + [f"rows {name.removeprefix(prefix).removesuffix(suffix)}" for name in rows]


def _points(file: PublishedFile) -> str:
    return " x ".join([str(file.resolution)] * len(file.problem.axes))


def _parameters(file: PublishedFile) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in file.parameters.items())


def _dataset(text: str) -> str:
    name = text.removesuffix(".hdf5")
    if name not in PUBLISHED:
        near = difflib.get_close_matches(name, [*PUBLISHED, *PROBLEMS], n=1, cutoff=0.3)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ConfigurationError(
            f"{text!r} is not published", where="NAME", fix=f"{hint}`ups data list` shows all names"
        )
    return name


def _range(text: str) -> tuple[int, int]:
    start, colon, stop = text.partition(":")
    if not (colon and start.isdecimal() and stop.isdecimal() and int(start) < int(stop)):
        raise argparse.ArgumentTypeError(f"{text!r} is no range: write START:STOP, e.g. 1000:1100")
    return int(start), int(stop)
