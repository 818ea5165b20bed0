"""Whole files from DaRUS, a mirror or a disk: all of it and nothing else, or a typed error.

The bytes go to `.<name>.partial` beside the destination, and what they are the beginning of (address, ETag,
length) to a small JSON beside that. A cut is resumed by a Range request, in this process or in the next one; if
the object has changed meanwhile, it is started over. The destination appears by a rename, after length and
MD5 agree and the bytes are on the disk: a file there is a whole file.

DaRUS cuts long transfers and is the reason for all this: its files are 8 GB each. PDEBench publishes an MD5
for each of them; without one (a private mirror) the server's own word is all there is: its length and ETag.

Rejected: pooch (no resume), wget and curl (not everywhere, and their words are no contract), several
connections at once (a public server of a university is not for that).
"""

import logging
import os
import string
from collections.abc import Callable
from pathlib import Path

from ups.errors import ConfigurationError, DataError, IntegrityError
from ups.problems.published import DARUS
from ups.transfer.address import ANOTHER_MIRROR, Address, parse_address
from ups.transfer.partial import (
    Downloaded,
    PartialFile,
    Sums,
    Wanted,
    alone,
    check_room,
    open_file,
    read_block,
)
from ups.transfer.patience import PACE, Fault, Pace, Patience
from ups.transfer.transport import Reply, Validators, exchange

log = logging.getLogger(__name__)

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
"""The first bytes of an HDF5 file without user block."""

Progress = Callable[[int, int | None], None]
"""Called with the bytes so far and the total, if known, after every block of about 64 KiB."""


def address_of(template: str, *, file_id: int, name: str) -> str:
    """The address of one file: `{id}` becomes its DaRUS number, `{name}` its name.

        address_of(DARUS, file_id=281363, name="1D_Burgers_Sols_Nu0.01.hdf5")
        address_of("https://mirror.example.org/pdebench/{name}", file_id=281363, name="1D_Burgers_...")

    Raises:
        ConfigurationError: the template has other placeholders or none, or is no address.
    """
    fix = f"write {{id}} or {{name}} where the file differs, e.g. {DARUS} or file:///data/pdebench/{{name}}"
    values = {"id": str(file_id), "name": name}
    try:
        parts = [
            (literal, placeholder, bool(specification) or conversion is not None)
            for literal, placeholder, specification, conversion in string.Formatter().parse(template)
        ]
    except ValueError as error:
        raise ConfigurationError(f"is no template: {error}", where="address template", fix=fix) from error
    placeholders = [placeholder for _, placeholder, _ in parts if placeholder is not None]
    if not placeholders or any(
        placeholder is not None and (placeholder not in values or decorated)
        for _, placeholder, decorated in parts
    ):
        named = ", ".join(f"{{{placeholder}}}" for placeholder in placeholders) or "none"
        raise ConfigurationError(f"has the placeholders: {named}", where="address template", fix=fix)
    address = "".join(
        literal + (values[placeholder] if placeholder is not None else "")
        for literal, placeholder, _ in parts
    )
    parse_address(address)
    return address


def download(
    address: str,
    destination: Path,
    *,
    md5: str | None,
    size: int | None = None,
    signature: bytes | None = None,
    deadline_seconds: float = 6 * 3600,
    attempts: int = 8,
    pace: Pace = PACE,
    progress: Progress | None = None,
) -> Downloaded:
    """Fetch one file, or accept the one that is there.

    A file at the destination is read and checked, and nothing is asked of the network. Of several processes
    with one destination the first works and the others wait for it.

    Args:
        address: http://, https:// or file://; may hold credentials.
        destination: the file to make; its directory is made if need be.
        md5: hexadecimal sum that the file must have. With None the server is believed.
        size: bytes that the file must have.
        signature: first bytes that the file must have, e.g. HDF5_SIGNATURE.
        deadline_seconds: for everything, waiting for another process included.
        attempts: failures in a row, none of which got further than before.
        pace: what is too slow, and how long to pause.
        progress: see `Progress`.

    Raises:
        ConfigurationError: the address cannot be read.
        DataError: the server does not have the file, refuses it, sends something else, or breaks the protocol.
        IntegrityError: a file, there or fetched twice, has another MD5 or size.
        PreflightError: the disk has too little room; nothing was fetched.
        StorageError: attempts or deadline are used up, or the disk failed; what has arrived is kept, and the
            same call goes on from it.
    """
    source = parse_address(address)
    patience = Patience(deadline_seconds=deadline_seconds, attempts=attempts, pace=pace)
    wanted = Wanted(None if md5 is None else md5.lower(), size, signature)
    destination = destination.absolute()
    with alone(destination, patience):
        if destination.exists():
            return _accept(destination, wanted)
        with PartialFile(destination, source, wanted) as partial:
            if source.path is not None:
                _copy(source.path, partial, patience, progress)
            else:
                _fetch(source, partial, patience, progress)
            return partial.publish()


def _fetch(source: Address, partial: PartialFile, patience: Patience, progress: Progress | None) -> None:
    """Receive the object until it is whole and right."""
    farthest = partial.bytes
    wrong: str | None = None
    while True:
        try:
            if not partial.complete:
                _receive(source, partial, patience, progress)
        except Fault as fault:
            if partial.bytes > farthest:
                farthest = partial.bytes
                patience.progressed()
            patience.wait(fault, str(source))
            continue
        if partial.right():
            return
        found = partial.sums.md5.hexdigest()
        partial.forget()
        if wrong is not None:
            raise IntegrityError(
                f"the file has MD5 {found} (and {wrong} before) instead of {partial.wanted.md5}",
                where=str(source),
                fix=f"this is another file, or another version of it: check address and MD5; or {ANOTHER_MIRROR}",
            )
        log.warning(
            "%s: the file has MD5 %s instead of %s; fetching it once more", source, found, partial.wanted.md5
        )
        wrong, farthest = found, 0
        patience.progressed()


def _receive(source: Address, partial: PartialFile, patience: Patience, progress: Progress | None) -> None:
    """One request: the whole object, or what is missing of it."""
    headers: dict[str, str] = {}
    if partial.bytes:
        headers["Range"] = f"bytes={partial.bytes}-"
        if partial.validators.if_range is not None:
            headers["If-Range"] = partial.validators.if_range
    with exchange(source, patience, headers) as reply:
        if reply.status == 416:
            if not partial.bytes:
                raise reply.lie("answers HTTP 416 although no range was asked for")
            if reply.unsatisfied_total() == partial.bytes:
                partial.total = partial.bytes
                return
            found = partial.bytes
            partial.forget()
            raise Fault(f"the server has no bytes from {found} on; starting over")
        reply.check_content()
        if reply.status == 206:
            _check_continuation(reply, partial)
        else:
            _begin(reply, partial)
        check_room(partial.path.parent, (partial.total or 0) - partial.bytes)
        for block in reply.blocks():
            partial.append(block)
            if progress is not None:
                progress(partial.bytes, partial.total)
    if partial.total is None:
        partial.total = partial.bytes
    if partial.total == 0:
        _refuse_empty(partial.wanted, reply.where)
    if partial.bytes < partial.total:
        raise Fault(f"the connection ended after {partial.bytes} of {partial.total} bytes")


def _begin(reply: Reply, partial: PartialFile) -> None:
    """A 200: the object from its first byte, whatever we have of it."""
    partial.wanted.check_size(reply.length, reply.where)
    if reply.length == 0:
        _refuse_empty(partial.wanted, reply.where)
    if not reply.delimited and partial.wanted.size is None and partial.wanted.md5 is None:
        raise DataError(
            "the server does not say how long the file is: it could not be told from a part of it",
            where=reply.where,
            fix="give its size or MD5",
        )
    total = reply.length if reply.length is not None else partial.wanted.size
    partial.restart(reply.validators, total)


def _refuse_empty(wanted: Wanted, where: str) -> None:
    if wanted.size != 0:
        raise DataError("the server sends an empty file", where=where, fix=ANOTHER_MIRROR)


def _check_continuation(reply: Reply, partial: PartialFile) -> None:
    """A 206: the bytes asked for, of the object whose beginning we have."""
    if not partial.bytes:
        raise reply.lie("sends a part although the whole was asked for")
    got = reply.content_range()
    if got.first != partial.bytes:
        raise reply.lie(f"sends the bytes from {got.first} on instead of from {partial.bytes} on")
    if partial.validators.differ(reply.validators) or (
        None not in (partial.total, got.total) and partial.total != got.total
    ):
        partial.forget()
        raise Fault("the file has changed on the server; starting over")
    total = got.total if got.total is not None else partial.total
    if total is not None and got.last != total - 1:
        raise reply.lie(f"sends the bytes up to {got.last} instead of {total - 1}")
    partial.wanted.check_size(total, reply.where)
    partial.total = total


def _copy(path: Path, partial: PartialFile, patience: Patience, progress: Progress | None) -> None:
    """From a disk: no resume, the same checks."""
    source = partial.source
    with open_file(path) as file:
        total = os.fstat(file.fileno()).st_size
        partial.wanted.check_size(total, str(source))
        check_room(partial.path.parent, total)
        partial.restart(Validators(None, None), total)
        while block := read_block(file, path):
            patience.check(str(source))
            partial.append(block)
            if progress is not None:
                progress(partial.bytes, total)
    if not partial.complete or not partial.right():
        found = f"{partial.bytes} bytes with MD5 {partial.sums.md5.hexdigest()}"
        wanted = f"{total} bytes" + (f" with MD5 {partial.wanted.md5}" if partial.wanted.md5 else "")
        partial.forget()
        raise IntegrityError(f"has {found} instead of {wanted}", where=str(source), fix="copy it again")


def _accept(destination: Path, wanted: Wanted) -> Downloaded:
    """The file that is there already, if it is the right one."""
    where = str(destination)
    fix = "it is left alone: move it away or delete it, and run the same command again"
    sums, length = Sums(), 0
    with open_file(destination) as file:
        while block := read_block(file, destination):
            sums.update(block)
            length += len(block)
    found = sums.md5.hexdigest()
    if wanted.size not in (None, length):
        raise IntegrityError(
            f"is there and has {length} bytes instead of {wanted.size}", where=where, fix=fix
        )
    if wanted.md5 not in (None, found):
        raise IntegrityError(f"is there and has MD5 {found} instead of {wanted.md5}", where=where, fix=fix)
    if not sums.head.startswith(wanted.signature or b""):
        raise IntegrityError(f"is there and does not begin with {wanted.signature!r}", where=where, fix=fix)
    return Downloaded(destination, length, found, sums.sha256.hexdigest())
