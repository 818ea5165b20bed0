"""`ups cache ls|verify|gc`."""

import argparse
import json

from rich.table import Column, Table
from rich.text import Text

from ups.artifacts import Store
from ups.artifacts.collection import collect, entries, verify
from ups.commands.arguments import add_root
from ups.commands.tables import show
from ups.errors import IntegrityError
from ups.pipeline.run import find_root


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("ls", help="list artifacts")
    listing.add_argument("--json", action="store_true", help="print JSON")
    checking = actions.add_parser("verify", help="check the bytes of every artifact against its manifest")
    checking.add_argument("--fast", action="store_true", help="crc32c instead of sha256")
    collecting = actions.add_parser(
        "gc", help="remove artifacts no run points to, unfinished work, and the quarantine"
    )
    collecting.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    for action in (listing, checking, collecting):
        add_root(action)


def execute(options: argparse.Namespace) -> None:
    """Dispatch; `verify` ends with exit code 5 when something is damaged."""
    store = Store(find_root(options.root))
    match options.action:
        case "ls":
            _list(store, as_json=options.json)
        case "verify":
            _verify(store, deep=not options.fast)
        case "gc":
            _collect(store, dry_run=options.dry_run)


def _list(store: Store, *, as_json: bool) -> None:
    found = list(entries(store))
    if as_json:
        print(json.dumps([vars(entry) | {"path": str(entry.path)} for entry in found], indent=2))
        return
    names = ("stage", "digest", "MB", "created", "runs")
    table = Table(*(Column(name, no_wrap=True) for name in names), "problem", box=None, pad_edge=False)
    for entry in found:
        runs = (
            entry.runs[-1] + (f" and {len(entry.runs) - 1} more" if len(entry.runs) > 1 else "")
            if entry.runs
            else "none"
        )
        table.add_row(
            entry.stage,
            entry.digest[:12],
            f"{entry.bytes / 1e6:.1f}",
            entry.created,
            runs,
            Text(entry.problem or ""),
        )
    show(table)
    print(f"{len(found)} artifacts, {sum(entry.bytes for entry in found) / 1e6:.1f} MB in {store.artifacts}")


def _verify(store: Store, *, deep: bool) -> None:
    damaged = 0
    for entry, problem in verify(store, deep=deep):
        print(f"{entry.stage:13} {entry.digest[:12]}  {problem or 'intact'}")
        damaged += problem is not None
    if damaged:
        raise IntegrityError(
            f"{damaged} artifact{'s are' if damaged > 1 else ' is'} damaged",
            where=str(store.artifacts),
            fix="run the configuration again: damaged artifacts are quarantined and rebuilt",
        )


def _collect(store: Store, *, dry_run: bool) -> None:
    freed, kept = 0, 0
    for removal in collect(store, dry_run=dry_run):
        place = removal.path.relative_to(store.artifacts)
        if removal.kept is None:
            print(f"{'would remove' if dry_run else 'removed'} {place}  {removal.bytes / 1e6:.1f} MB")
            freed += removal.bytes
        else:
            print(f"kept {place}  {removal.bytes / 1e6:.1f} MB: {removal.kept}")
            kept += removal.bytes
    print(f"{freed / 1e6:.1f} MB {'would be ' if dry_run else ''}freed, {kept / 1e6:.1f} MB kept")
