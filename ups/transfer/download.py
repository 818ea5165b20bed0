"""Whole files from DaRUS, a mirror or a disk: all of it and nothing else, or a typed error.

A cut is resumed by a Range request, in this process or in the next one; if the object has changed meanwhile, it is
started over. The destination appears by a rename, after its MD5 agrees and the bytes are on the disk: a file there
is a whole file. DaRUS cuts long transfers and is the reason for all this: its files are 8 GB each.

Rejected: pooch (no resume), wget and curl (not everywhere, and their words are no contract), several
connections at once (a public server of a university is not for that).
"""

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ups.artifacts.files import publish
from ups.errors import ConfigurationError, DataError, IntegrityError
from ups.problems.published import DARUS
from ups.transfer.address import ANOTHER_MIRROR, parse_address
from ups.transfer.partial import PartialFile, RunningChecksums, writing
from ups.transfer.retry import DEFAULT, Deadline, RetryPolicy, TransientError, retry
from ups.transfer.source import Source, Version

log = logging.getLogger(__name__)

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
"""The first bytes of an HDF5 file without user block."""

Progress = Callable[[int, int | None], None]
"""Called with the bytes so far and the total, if known, after every block."""


def address_of(template: str, *, file_id: int, name: str) -> str:
    """The address of one file: `{id}` becomes its DaRUS number, `{name}` its name.

        address_of(DARUS, file_id=281363, name="1D_Burgers_Sols_Nu0.01.hdf5")
        address_of("https://mirror.example.org/pdebench/{name}", file_id=281363, name="1D_Burgers_...")

    Raises:
        ConfigurationError: the template has other placeholders or none, or is no address.
    """
    address = template.replace("{id}", str(file_id)).replace("{name}", name)
    if address == template or re.search("[{}]", address):
        raise ConfigurationError(
            "has no placeholder, or another one than {id} and {name}",
            where="address template",
            fix=f"write {{id}} or {{name}} where the file differs, e.g. {DARUS} or file:///data/pdebench/{{name}}",
        )
    parse_address(address)
    return address


def download(
    address: str,
    destination: Path,
    *,
    md5: str,
    size: int | None = None,
    signature: bytes = b"",
    policy: RetryPolicy = DEFAULT,
    progress: Progress | None = None,
) -> str:
    """Fetch one file, or accept the one that is there.

    A file at the destination is read and checked, and nothing is asked of the network. Of several processes
    with one destination the first works and the others wait for it.

    Args:
        address: http://, https:// or file://; may hold credentials.
        destination: the file to make; its directory is made if need be.
        md5: hexadecimal sum that the file must have.
        size: bytes that the file must have.
        signature: first bytes that the file must have, e.g. HDF5_SIGNATURE: found out at once, not after 8 GB.
        policy: deadline, attempts and pauses.
        progress: see `Progress`.

    Returns:
        The file's sha256, hexadecimal.

    Raises:
        ConfigurationError: the address cannot be read.
        DataError: the server does not have the file, refuses it, sends something else, or breaks the protocol.
        IntegrityError: the file that is there, or was fetched twice, has another MD5; or it has another size.
        PreflightError: the disk has too little room; nothing was fetched.
        StorageError: attempts or deadline are used up, or the disk failed; what has arrived is kept, and the
            same call goes on from it.
    """
    deadline = Deadline(policy)
    source = Source(parse_address(address), deadline, size)
    destination = destination.absolute()
    with writing(destination, deadline):
        if destination.exists():
            checksums = RunningChecksums()
            with destination.open("rb") as file:
                checksums.read(file)
            if (found := checksums.md5.hexdigest()) != md5:
                raise IntegrityError(
                    f"is there and has MD5 {found} instead of {md5}",
                    where=str(destination),
                    fix="it is left alone: move it away or delete it, and run the same command again",
                )
            return checksums.sha256.hexdigest()
        partial = PartialFile(destination)
        for last in (False, True):
            _fetch(source, partial, signature, progress)
            found = partial.checksums.md5.hexdigest()
            if found == md5:
                break
            partial.discard()
            if last:
                raise IntegrityError(
                    f"the file has MD5 {found} instead of {md5}, twice",
                    where=str(source),
                    fix=f"this is another file, or another version of it: check address and MD5; or {ANOTHER_MIRROR}",
                )
            log.warning("%s: MD5 %s instead of %s; fetching it once more", source, found, md5)
        publish(partial.path, destination)
        sha256 = partial.checksums.sha256.hexdigest()
        partial.discard()
        return sha256


def _fetch(source: Source, partial: PartialFile, signature: bytes, progress: Progress | None) -> None:
    """Receive the object until it is whole, beginning with what is here of it."""

    def usable(record: Any) -> bool:
        if record.get("address_sha256") != source.address.digest or "version" not in record:
            return False
        source.version = Version(*record["version"])
        return True

    def attempt() -> None:
        length = source.version.length
        if not partial.size or partial.size != length:
            try:
                source.receive(partial.size, None, take, begin)
            except IntegrityError as error:
                if not partial.size:
                    raise
                partial.discard()
                source.version = source.wanted
                raise TransientError(f"{error}; starting over") from error
        if not partial.size:
            raise DataError("the server sends an empty file", where=str(source), fix=ANOTHER_MIRROR)

    def begin() -> None:
        partial.check_room(source.version.length or 0)
        # The address is for people; what counts is the sum, which holds no secret.
        record = {"address": str(source), "address_sha256": source.address.digest}
        partial.begin(record | {"version": list(source.version)})

    def take(block: bytes) -> None:
        if not partial.size and not signature.startswith(block[: len(signature)]):
            partial.discard()
            raise DataError(
                f"the file begins with {block[: len(signature)]!r} and must begin with {signature!r}",
                where=str(source),
                fix=f"check that the address is that of the file itself; or {ANOTHER_MIRROR}",
            )
        partial.append(block)
        if progress is not None:
            progress(partial.size, source.version.length)

    partial.resume(usable)
    retry(attempt, lambda: partial.size, source.deadline, str(source))
