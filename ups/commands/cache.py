"""`ups cache ls|show|verify|gc|why|pin|unpin`.

Every action has --json: then standard output is one JSON value, and what is reported on the way goes to standard
error.
"""

import argparse
import json
import re
import sys
from collections import defaultdict
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import yaml
from rich.table import Column, Table
from rich.text import Text

from ups.artifacts import Store
from ups.artifacts.collection import (
    Entry,
    Leftover,
    Policy,
    Removal,
    choose,
    collect,
    entries,
    leftovers,
    verify,
)
from ups.artifacts.description import describe, is_chunk
from ups.artifacts.manifest import Manifest
from ups.artifacts.pins import pin, pins, unpin
from ups.commands.arguments import add_configuration, add_root, add_stage, read_configuration
from ups.commands.tables import show
from ups.errors import ConfigurationError, IntegrityError, PreflightError
from ups.pipeline.explanation import explain, newest_digests
from ups.pipeline.plan import make_plan
from ups.pipeline.run import RUNS, find_root

_SHORT = 12
_LARGE_BYTES = 1 << 28  # a second's worth of reading or more: said before it is done
_DIGEST = "a digest, its first characters (4 or more), or STAGE/DIGEST"
_HOURS = {"h": 1, "d": 24, "w": 7 * 24}
_BYTES = {
    "MB": 10**6, "GB": 10**9, "TB": 10**12, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40,
}  # fmt: skip
_KINDS = {"work": "unfinished work", "quarantine": "quarantine", "remains": "half deleted"}

_HELP: dict[str, tuple[str, str, str]] = {
    "ls": (
        "list artifacts, unfinished work and the quarantine, with their sizes",
        "List what is below artifacts/. Last used: the newest of an artifact's sealing, the start of the newest run "
        "that points to it, and the last use of an artifact made of it.",
        "ups cache ls --sort size",
    ),
    "show": (
        "show everything about one artifact",
        "Path, sizes and sums, settings, code, inputs and whether they are still there, what the stage reported, "
        "the runs that point to it, pins; of a latent cache also its arrays.",
        "ups cache show 3f2a\n  ups cache show operator/3f2a --json",
    ),
    "verify": (
        "check the bytes of artifacts against their manifests",
        "Read every file and compare it with the sum it was sealed with. Exit code 5 when anything is damaged: the "
        "next run of its configuration sets it aside and builds it again.",
        "ups cache verify\n  ups cache verify 3f2a 91bc --fast",
    ),
    "gc": (
        "remove artifacts no run points to, work none can go on with, and the quarantine",
        "Remove artifacts that no run points to, work of interrupted stages that no run can go on with, and the "
        "quarantine; with --quota or --include-runs "
        "also artifacts that runs point to (those runs keep their tables and report, and can be built again). What "
        "is pinned, and what a running process uses or has planned to use, is never removed. A pin is for one "
        "artifact, not for its inputs. Exit code 3 when a quota is not reached because the rest must be kept.",
        "ups cache gc --dry-run\n  ups cache gc --older-than 30d\n  ups cache gc --quota 20GB --dry-run\n"
        "  ups cache gc --older-than 8w --include-runs",
    ),
    "why": (
        "explain per stage why it is a HIT or a MISS",
        "Compare the derivation of every stage (settings, code, contents of inputs) with what the newest run of this "
        "configuration has, or else with the nearest sealed artifact of that stage. Nothing is built or changed.",
        "ups cache why configs/burgers_demo.yaml operator --set training.operator.learning_rate=3e-4",
    ),
    "pin": (
        "keep an artifact whatever gc is asked to remove",
        "Write a pin for a digest: gc never removes it, and it holds if the artifact is rebuilt. Its inputs are not "
        "pinned with it.",
        "ups cache pin 3f2a --note 'figure 3 of the paper'",
    ),
    "unpin": ("remove a pin", "Remove the pin of a digest. The artifact stays until gc removes it.", "ups cache unpin 3f2a"),
}  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    made: dict[str, argparse.ArgumentParser] = {}
    for name, (summary, description, example) in _HELP.items():
        made[name] = actions.add_parser(
            name,
            help=summary,
            description=description,
            epilog=f"examples:\n  {example}",
            formatter_class=_Formatter,
        )
    made["ls"].add_argument(
        "--sort",
        choices=("stage", "size", "age"),
        default="stage",
        help="size: largest first; age: longest unused first (default: stage)",
    )
    made["verify"].add_argument(
        "digests", metavar="DIGEST", nargs="*", help=f"{_DIGEST}; none: all artifacts"
    )
    made["verify"].add_argument("--fast", action="store_true", help="xxh3 instead of sha256")
    _add_policy(made["gc"])
    add_configuration(made["why"])
    add_stage(made["why"], "stage", metavar="STAGE", nargs="?", help="only this stage")
    for name in ("show", "pin", "unpin"):
        made[name].add_argument("digest", metavar="DIGEST", help=_DIGEST)
    made["pin"].add_argument(
        "--note", metavar="TEXT", default="", help="why it is kept; `ls` and `gc` show it"
    )
    for action in made.values():
        add_root(action)
        action.add_argument("--json", action="store_true", help="print JSON")


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Examples line by line, descriptions wrapped."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if text.startswith("examples:"):
            return super()._fill_text(text, width, indent)
        return argparse.HelpFormatter._fill_text(self, text, width, indent)


def _add_policy(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    parser.add_argument(
        "--older-than",
        metavar="AGE",
        type=_age,
        help="spare what was used or written more recently, under a quota too: a number and h, d or w, e.g. 30d",
    )
    parser.add_argument(
        "--include-runs",
        action="store_true",
        help="with --older-than: remove artifacts of that age although runs point to them",
    )
    parser.add_argument(
        "--include-work",
        action="store_true",
        help="remove the work of interrupted stages too with which a run could go on",
    )
    parser.add_argument(
        "--quota",
        metavar="SIZE",
        type=_size,
        help="while artifacts/ holds more, remove artifacts that runs point to as well, the least recently used "
        "first: a number and MB, GB, TB, MiB, GiB or TiB, e.g. 20GB",
    )


def execute(options: argparse.Namespace) -> None:
    """Dispatch; `verify` ends with exit code 5 when something is damaged, `gc` with 3 above its quota."""
    store = Store(find_root(options.root))
    actions: dict[str, Callable[[Store, argparse.Namespace], None]] = {
        "ls": _list, "show": _show, "verify": _verify, "gc": _collect, "why": _why, "pin": _pin, "unpin": _unpin,
    }  # fmt: skip
    actions[options.action](store, options)


def _list(store: Store, options: argparse.Namespace) -> None:
    found, others = entries(store), list(leftovers(store))
    there = {(entry.stage, entry.digest) for entry in found}
    absent = [made for name, made in pins(store).items() if name not in there]
    match options.sort:
        case "size":
            found.sort(key=lambda entry: -entry.bytes)
        case "age":
            found.sort(key=lambda entry: _when(entry.used))
    if options.json:
        rows = [row.to_json() for row in (*found, *others)]
        _print_json([*rows, *({"kind": "pin", "bytes": 0} | vars(made) for made in absent)])
        return
    if found:
        show(_artifact_table(found))
    if others:
        print()
        show(_leftover_table(others))
    for made in absent:
        print(f"pinned and not there: {made.stage}/{made.digest[:_SHORT]} {made.note}".rstrip())
    parts = [f"{_count(len(found), 'artifact')}, {_megabytes(sum(entry.bytes for entry in found))}"]
    pinned = [entry for entry in found if entry.pin]
    if pinned:
        parts[0] += f" (pinned: {len(pinned)}, {_megabytes(sum(entry.bytes for entry in pinned))})"
    for kind, name in _KINDS.items():
        if mine := [other for other in others if other.kind == kind]:
            parts.append(f"{name}: {len(mine)}, {_megabytes(sum(other.bytes for other in mine))}")
    print(f"{'; '.join(parts)}; in {store.artifacts}")


def _artifact_table(found: list[Entry]) -> Table:
    names = ("stage", "digest", "MB", "created", "last used", "runs", "pinned")
    table = _table(*(Column(name, no_wrap=True) for name in names), "problem")
    for entry in found:
        table.add_row(
            entry.stage,
            entry.digest[:_SHORT],
            f"{entry.bytes / 1e6:.1f}",
            _time_text(entry.created),
            _time_text(entry.used),
            _runs(entry.runs),
            Text(entry.pin.note or "yes") if entry.pin else "",
            Text(entry.problem or ""),
        )
    return table


def _leftover_table(others: list[Leftover]) -> Table:
    names = ("stage", "digest", "MB", "last written")
    table = _table(Column("", no_wrap=True), *(Column(name, no_wrap=True) for name in names), "problem")
    for other in others:
        table.add_row(
            _KINDS[other.kind],
            other.stage,
            other.digest[:_SHORT],
            f"{other.bytes / 1e6:.1f}",
            _time_text(other.written),
            Text(other.problem or ""),
        )
    return table


def _show(store: Store, options: argparse.Namespace) -> None:
    known = entries(store)
    chosen = choose(((entry.stage, entry.digest) for entry in known), options.digest)
    entry = next(entry for entry in known if (entry.stage, entry.digest) == chosen)
    if entry.manifest is None:
        raise IntegrityError(f"cannot be shown: {entry.problem}", where=str(entry.path))
    described = describe(store, entry, entry.manifest, known)
    if options.json:
        _print_json(described)
    else:
        _print_described(entry, entry.manifest, described)


def _print_described(entry: Entry, manifest: Manifest, described: dict[str, Any]) -> None:
    pinned = f"{entry.pin.created}  {entry.pin.note}".rstrip() if entry.pin else "no"
    for name, value in {
        "stage": entry.stage,
        "digest": entry.digest,
        "content": manifest.content,
        "path": entry.path,
        "size": f"{_megabytes(entry.bytes)} in {_count(len(manifest.files), 'file')}",
        "created": f"{manifest.created}, in {manifest.seconds:g} s",
        "last used": _time_text(entry.used),
        "pinned": pinned,
        "runs": ", ".join(entry.runs) or "none",
        "code": _code_text(manifest.derivation.get("code")),
    }.items():
        print(f"{name:10} {value}")
    _section("inputs", [
        f"{stage}/{sums['digest'][:_SHORT]}  content {sums['content'][:_SHORT]}  {sums['state']}"
        for stage, sums in described["inputs"].items()
    ])  # fmt: skip
    _section(
        "data",
        [
            f"{data['name']}, {data['version']}  ({_shortly(name)})"
            for name, versions in described["provenance"].items()
            for data in versions
        ],
    )
    _section("made of it", [_shortly(name) for name in described["dependants"]])
    _section("settings", _as_yaml(manifest.derivation.get("settings", {})).splitlines())
    _section("reported by the stage", _as_yaml(manifest.summary).splitlines())
    for group in described["groups"]:
        values = {"splits": group["splits"], **group["attributes"]}
        lines = _as_yaml({name: value for name, value in values.items() if value != {}}).splitlines()
        if any(values.values()):
            _section(f"zarr group {group['path']}", lines)
    if described["arrays"]:
        print("\nzarr arrays")
        show(_array_table(described["arrays"]))
    print("\nfiles" + (" (without chunks of arrays; --json has them all)" if described["arrays"] else ""))
    table = _table(
        Column("path", no_wrap=True), *(Column(n, no_wrap=True) for n in ("bytes", "xxh3", "sha256"))
    )
    for file in manifest.files:
        if not is_chunk(file, described["arrays"]):
            table.add_row(Text(file.path), str(file.bytes), file.xxh3, file.sha256)
    show(table)


def _code_text(code: Any) -> str:
    """Modules by their number; `--json` has them all. An earlier version recorded one sum of everything."""
    if not isinstance(code, dict):
        return str(code or "not recorded")
    libraries = (f"{name} {release}" for name, release in code["libraries"].items())
    return ", ".join([_count(len(code["modules"]), "module"), *libraries])


def _array_table(arrays: list[dict[str, Any]]) -> Table:
    table = _table(*(
        Column(name, no_wrap=True)
        for name in ("array", "dimensions", "shape", "chunks", "dtype", "codecs", "chunk files", "MB")
    ))  # fmt: skip
    for array in arrays:
        shards = f" in {_by(array['shards'])}" if array["shards"] else ""
        whole = array["chunk_files"] == array["chunk_files_expected"]
        table.add_row(
            Text(array["path"]),
            Text(" ".join(str(name) for name in array["dimensions"] or [])),
            _by(array["shape"]),
            _by(array["chunks"]) + shards,
            str(array["dtype"]),
            " ".join(array["codecs"]),
            f"{array['chunk_files']}" + ("" if whole else f" of {array['chunk_files_expected']}"),
            f"{array['bytes'] / 1e6:.1f}",
        )
    return table


def _verify(store: Store, options: argparse.Namespace) -> None:
    known = entries(store)
    names = [(entry.stage, entry.digest) for entry in known]
    only = {choose(names, digest) for digest in options.digests} if options.digests else None
    total = sum(entry.bytes for entry in known if only is None or (entry.stage, entry.digest) in only)
    begun = 0

    def on_start(entry: Entry) -> None:
        nonlocal begun
        if entry.bytes >= _LARGE_BYTES:
            done = f"{_megabytes(begun)} of {_megabytes(total)} done"
            print(f"reading {entry.name}, {_megabytes(entry.bytes)} ({done})", file=sys.stderr)
        begun += entry.bytes

    results, report = [], _printer(options)
    for entry, problem in verify(store, deep=not options.fast, only=only, on_start=on_start):
        report(f"{entry.stage:13} {entry.digest[:_SHORT]}  {problem or 'intact'}")
        results.append(entry.to_json() | {"problem": problem})
    if options.json:
        _print_json(results)
    damaged = sum(result["problem"] is not None for result in results)
    if damaged:
        raise IntegrityError(
            f"{damaged} artifact{'s are' if damaged > 1 else ' is'} damaged",
            where=str(store.artifacts),
            fix="run the configuration again: damaged artifacts are quarantined and rebuilt",
        )


def _collect(store: Store, options: argparse.Namespace) -> None:
    policy = Policy(options.older_than, options.include_runs, options.include_work, options.quota)
    removed, kept, report = [], [], _printer(options)
    for removal in collect(store, dry_run=options.dry_run, policy=policy):
        report(_removal_text(store, removal, dry_run=options.dry_run))
        (removed if removal.kept is None else kept).append(removal)
    losses: dict[str, list[str]] = defaultdict(list)
    for removal in removed:
        for run in removal.runs:
            losses[run].append(str(removal.path.relative_to(store.artifacts)))
    freed, held = (sum(removal.bytes for removal in part) for part in (removed, kept))
    for run, lost in sorted(losses.items()):
        stages = ", ".join(sorted(name.partition("/")[0] for name in lost))
        report(f"run {run} {'would lose' if options.dry_run else 'has lost'} {stages}")
    report(f"{_megabytes(freed)} {'would be ' if options.dry_run else ''}freed, {_megabytes(held)} kept")
    if options.json:
        _print_json({
            "dry_run": options.dry_run,
            "removed": [_removal_json(removal) for removal in removed],
            "kept": [_removal_json(removal) for removal in kept],
            "freed_bytes": freed,
            "kept_bytes": held,
            "quota_bytes": options.quota,
            "quota_reached": None if options.quota is None else held <= options.quota,
            "runs": losses,
        })  # fmt: skip
    if options.quota is not None and held > options.quota:
        reasons: dict[str, int] = defaultdict(int)
        for removal in kept:
            reasons[(removal.kept or "").partition(" (")[0]] += removal.bytes
        largest = sorted(reasons.items(), key=lambda pair: -pair[1])
        why = "; ".join(f"{_megabytes(size)}: {reason}" for reason, size in largest)
        raise PreflightError(
            f"the quota of {_megabytes(options.quota)} {'would not be' if options.dry_run else 'is not'} reached, "
            f"{_megabytes(held)} must be kept ({why})",
            where=str(store.artifacts),
            fix="unpin artifacts, wait for the processes that use them, or allow more",
        )


def _removal_text(store: Store, removal: Removal, *, dry_run: bool) -> str:
    place = f"{removal.path.relative_to(store.artifacts)}  {_megabytes(removal.bytes)}"
    if removal.kept is not None:
        return f"kept {place}: {removal.kept}"
    verb = "would remove" if dry_run else "removed"
    used = f", last used {_time_text(removal.used)}" if removal.runs else ""
    return f"{verb} {place}{used}" + (f" by {_runs(list(removal.runs))}" if removal.runs else "")


def _removal_json(removal: Removal) -> dict[str, Any]:
    used = removal.used.isoformat(timespec="seconds") if removal.used else None
    return vars(removal) | {"path": str(removal.path), "runs": list(removal.runs), "used": used}


def _why(store: Store, options: argparse.Namespace) -> None:
    configuration = read_configuration(options)
    plan = make_plan(configuration, store, options.stage)
    known = entries(store)
    explanations = explain(
        plan,
        [entry.manifest for entry in known if entry.manifest is not None],
        newest=newest_digests(store.root / RUNS, configuration.name),
    )
    shown = [each for each in explanations if options.stage in {None, each.stage}]
    for entry in known:
        if entry.manifest is None and entry.stage in {each.stage for each in shown}:
            print(f"not compared with: {entry.problem}", file=sys.stderr)
    if options.json:
        _print_json([each.to_json() for each in shown])
    else:
        for each in shown:
            print("\n".join(each.lines()))


def _pin(store: Store, options: argparse.Namespace) -> None:
    stage, digest = choose(((path.parent.name, path.name) for path in store), options.digest)
    made = pin(store, stage, digest, note=options.note)
    if options.json:
        _print_json(vars(made))
    else:
        print(f"pinned {stage}/{digest[:_SHORT]} {made.note}".rstrip())


def _unpin(store: Store, options: argparse.Namespace) -> None:
    pinned = pins(store)
    there = [(path.parent.name, path.name) for path in store]
    stage, digest = choose([*pinned, *there], options.digest)
    if not unpin(store, stage, digest):
        raise ConfigurationError(
            "is not pinned", where=f"{stage}/{digest[:_SHORT]}", fix="`ups cache ls` shows pins"
        )
    if options.json:
        _print_json({"stage": stage, "digest": digest, "pinned": False})
    else:
        print(f"unpinned {stage}/{digest[:_SHORT]}")


def _age(text: str) -> timedelta:
    """A number and h, d or w."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([hdw])", text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no age; write a number and h, d or w, e.g. 30d")
    try:
        return timedelta(hours=float(match[1]) * _HOURS[match[2]])
    except OverflowError:
        raise argparse.ArgumentTypeError(f"{text!r} is more than can be counted") from None


def _size(text: str) -> int:
    """A number and MB, GB, TB (powers of 1000) or MiB, GiB, TiB (of 1024), in bytes."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([MGT]I?B)", text.strip().upper())
    if match is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no size; write a number and MB, GB, TB, MiB, GiB or TiB, e.g. 20GB"
        )
    return int(float(match[1]) * _BYTES[match[2]])


def _printer(options: argparse.Namespace) -> Callable[[str], None]:
    """Where lines for people go: standard output, which with --json is for one JSON value alone."""
    return lambda line: print(line, file=sys.stderr if options.json else sys.stdout, flush=True)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))


def _table(*columns: Column | str) -> Table:
    return Table(*columns, box=None, pad_edge=False)


def _section(title: str, lines: list[str]) -> None:
    print("\n".join(["", title, *(f"  {line}" for line in lines or ["none"])]))


def _as_yaml(value: Any) -> str:
    text = yaml.safe_dump(value, sort_keys=False, default_flow_style=False, allow_unicode=True, width=100)
    return text.removesuffix("...\n")


def _shortly(name: str) -> str:
    """STAGE/DIGEST with a short digest."""
    stage, _, digest = name.partition("/")
    return f"{stage}/{digest[:_SHORT]}"


def _runs(runs: list[str]) -> str:
    if not runs:
        return "none"
    return runs[-1] + (f" and {len(runs) - 1} more" if len(runs) > 1 else "")


def _when(time: datetime | None) -> float:
    return time.timestamp() if time else 0.0


def _time_text(time: datetime | None) -> str:
    return f"{time:%Y-%m-%d %H:%M}" if time else "unknown"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size < 10**10 else f"{size / 1e9:.1f} GB"


def _by(sizes: list[int]) -> str:
    return "x".join(map(str, sizes)) or "scalar"
