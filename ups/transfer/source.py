"""Bytes of a file elsewhere, over HTTP or from a disk, in one attempt: exactly what was asked for, or an error.

An attempt ends: by the deadline, or when nothing comes. httpx's own timeouts bound single reads, and an answer
that arrives byte by byte could last for ever; here a timer bounds the header as a whole, and each block of the
body. What may be gone at the next attempt is a `TransientError`; what would be the same again is an error of
`ups.errors`.

Rejected: httpx's blocking client (only a second thread could end it in time, and threads and h5py's lock can wait
for each other); kept connections (a stale one is one more fault); a bound on the average speed (the deadline is one).
"""

import asyncio
import logging
import os
import re
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from ups.errors import DataError, IntegrityError, PreflightError, StorageError
from ups.transfer.address import ANOTHER_MIRROR, Address, check_public, check_redirect, shown
from ups.transfer.retry import Deadline, TransientError

# At INFO it writes every address, with the access key in its query.
logging.getLogger("httpx").setLevel(logging.WARNING)

_REDIRECTS = 5
_BLOCK = 1 << 20
_HEADERS = {"User-Agent": "universal-physics-stack", "Accept-Encoding": "identity", "Connection": "close"}


Take = Callable[[bytes], object]
Begin = Callable[[], object]


class Version(NamedTuple):
    """What tells two versions of an object apart; None where it is not known. The length is in bytes."""

    length: int | None = None
    etag: str | None = None
    last_modified: str | None = None

    @property
    def if_range(self) -> str | None:
        """For the If-Range header, which takes no weak ETag (RFC 9110, 13.1.5)."""
        value = self.last_modified if self.etag is None else self.etag
        # What is not ASCII may be received, but not sent.
        return None if value is None or value.startswith("W/") or not value.isascii() else value

    def check(self, other: "Version", where: str) -> None:
        """Raises IntegrityError where another version is certainly not this one."""
        # Servers of one object may differ in its date, and not in its ETag.
        date = None if self.etag and other.etag else self.last_modified
        for name, known, found in zip(self._fields, (*self[:2], date), other, strict=True):
            if None not in (known, found) and known != found:
                raise IntegrityError(
                    f"is another version than the one begun or asked for: {name} {found} instead of {known}",
                    where=where,
                    fix=f"run the same command again; if that recurs, check the address; or {ANOTHER_MIRROR}",
                )


class Source:
    """A file elsewhere.

    Attributes:
        version: of it, as far as known; every answer must agree with it.
    """

    def __init__(self, address: Address, deadline: Deadline, length: int | None = None) -> None:
        self.address = address
        self.deadline = deadline
        self.wanted = self.version = Version(length)

    def __str__(self) -> str:
        return str(self.address)

    def receive(self, first: int, stop: int | None, take: Take, begin: Begin) -> None:
        """One attempt to receive bytes [first, stop), or from `first` to the end.

        Args:
            take: gets the next block.
            begin: called when the first byte of a version is about to come, which is known then: because it was
                asked for, or, where no `stop` is given, as the server ignores ranges or has another version.

        Raises:
            TransientError: no connection, silence, a cut, or a status that may be gone the next time.
            IntegrityError: this is another version.
            DataError: the object is absent or refused, is not sent as asked, or the redirects are not to be followed.
            PreflightError: the certificate is not trusted, or the proxy cannot be used.
            StorageError: the deadline has passed. OSError: a disk failed.
        """
        if self.address.path is not None:
            self._receive_file(self.address.path, first, stop, take, begin)
        else:
            asyncio.run(self._receive_http(first, stop, take, begin))

    def _begin(self, version: Version, begin: Begin) -> None:
        self.wanted.check(version, str(self))
        self.version = version if version.length is not None else version._replace(length=self.wanted.length)
        begin()

    async def _receive_http(self, first: int, stop: int | None, take: Take, begin: Begin) -> None:
        seconds = self.deadline.policy.inactivity_seconds
        headers = dict(_HEADERS)
        if first or stop is not None:
            headers["Range"] = f"bytes={first}-" if stop is None else f"bytes={first}-{stop - 1}"
            if self.version.if_range is not None:
                headers["If-Range"] = self.version.if_range
        try:
            async with asyncio.timeout(self.deadline.remaining()), _client(self.address) as client:
                async with _in_time(seconds):
                    response = await _send(client, self.address, headers)
                first, end, version = _sent(response, first, stop, self.version)
                if not first:
                    self._begin(version, begin)
                end = self.version.length if end is None else end
                missing = None if end is None else end - first
                blocks = response.aiter_raw()
                while True:
                    async with _in_time(seconds):
                        block = await anext(blocks, None)
                    if block is None:
                        break
                    if missing is not None and (missing := missing - len(block)) < 0:
                        raise _refused(response, "sends more bytes than it announced")
                    take(block)
        except TimeoutError:
            raise StorageError(
                f"is not finished, and the deadline of {self.deadline.policy.deadline_seconds:g} s has passed",
                where=str(self),
                fix="run the same command again, it goes on from what has arrived; or raise the deadline",
            ) from None
        except httpx.RequestError as error:
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise PreflightError(
                    f"the server's certificate is not trusted ({error})",
                    where=str(self),
                    fix="name your authorities' certificates in SSL_CERT_FILE; check the clock",
                ) from error
            raise TransientError(f"the connection failed: {error or type(error).__name__}") from error
        if missing:
            raise TransientError(f"the connection ended {missing} bytes too early")

    def _receive_file(self, path: Path, first: int, stop: int | None, take: Take, begin: Begin) -> None:
        """A file's version is its size and its time of modification."""
        if not path.is_file():
            raise DataError("there is no such file", where=str(path), fix="check the path in the address")
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            version = Version(status.st_size, last_modified=str(status.st_mtime_ns))
            self.version.check(version, str(path))
            if not first:
                self._begin(version, begin)
            missing = (status.st_size if stop is None else stop) - file.seek(first)
            while block := file.read(min(_BLOCK, missing)):
                take(block)
                missing -= len(block)
        if missing:
            raise TransientError(f"the file ended {missing} bytes too early")


@asynccontextmanager
async def _in_time(seconds: float) -> AsyncIterator[None]:
    """Something must come within these seconds."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise TransientError(f"nothing came from the server for {seconds:g} s") from None


def _client(address: Address) -> httpx.AsyncClient:
    """Honours http_proxy, no_proxy, SSL_CERT_FILE and the like."""
    try:
        return httpx.AsyncClient(timeout=None)
    except (ValueError, ImportError, httpx.InvalidURL):  # it may hold a password: not shown
        raise PreflightError(
            "the proxy that the environment names cannot be used",
            where=str(address),
            fix="set http_proxy, https_proxy or all_proxy to http://host:port, or add the host to no_proxy",
        ) from None


async def _send(client: httpx.AsyncClient, address: Address, headers: dict[str, str]) -> httpx.Response:
    """The answer, with its body still to come, behind at most 5 redirects.

    The client sends credentials to the scheme, host and port that were named, and to no other.
    """
    request = client.build_request("GET", address.url, headers=headers)
    response = await client.send(request, stream=True, auth=address.credentials)
    named = address.url.scheme, address.url.netloc, b""
    for _ in range(_REDIRECTS):
        target = response.next_request
        if target is None:
            return response
        await response.aclose()
        if (target.url.scheme, target.url.netloc, target.url.userinfo) != named:
            check_redirect(response.url, target.url)
            target.extensions = target.extensions | {"trace": _check_peer(target.url)}
        response = await client.send(target, stream=True)
    if response.next_request is not None:
        raise _refused(response, f"redirects more than {_REDIRECTS} times")
    return response


def _check_peer(url: httpx.URL) -> Callable[[str, dict[str, Any]], Coroutine[Any, Any, None]]:
    """A hook that looks at the address that was connected to, before anything is sent there.

    So a name server cannot answer differently the second time: nobody asks it again. Behind a proxy the name is the
    proxy's to resolve.
    """
    direct = False

    async def trace(event: str, info: dict[str, Any]) -> None:
        nonlocal direct
        if event == "connection.connect_tcp.started":
            direct = info["host"] == url.raw_host.decode("ascii")
        elif event == "connection.connect_tcp.complete" and direct:
            try:
                check_public(url, info["return_value"].get_extra_info("server_addr")[0])
            except DataError:
                await info["return_value"].aclose()
                raise

    return trace


def _sent(
    response: httpx.Response, first: int, stop: int | None, known: Version
) -> tuple[int, int | None, Version]:
    """The bytes [first, stop) that an answer brings, and of which version; raises where they were not asked for."""
    where, headers, ranged = shown(response.url), response.headers, first > 0 or stop is not None
    _check_status(response, (200, 206, 416) if first else (200, 206) if ranged else (200,))
    if response.status_code == 416:
        raise IntegrityError("the file is shorter than it was", where=where, fix="run the same command again")
    if headers.get("content-type", "").startswith(("text/html", "application/xhtml")):
        raise _refused(response, "sends an HTML page, not the file (open the address in a browser)")
    if headers.get("content-encoding", "identity") != "identity":
        raise _refused(response, f"sends the file encoded ({headers['content-encoding'][:20]!r})")
    length = int(headers["content-length"]) if "content-length" in headers else None
    version = Version(length, headers.get("etag"), headers.get("last-modified"))
    if response.status_code == 200:
        if stop is None:
            return 0, length, version
        known.check(version, where)
        raise _refused(response, "does not serve parts of files; download the whole file")
    text = headers.get("content-range", "")
    match = re.fullmatch(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)", text)
    if match is None:
        raise _refused(response, f"answers a range with Content-Range {text[:60]!r}")
    version = version._replace(length=None if match[3] == "*" else int(match[3]))
    known.check(version, where)
    begin, end = int(match[1]), int(match[2]) + 1
    total = version.length or known.length or end
    if (begin, end) != (first, stop or total) or end > total or length not in (None, end - begin):
        raise _refused(
            response, f"sends {text[:60]!r} in {length} bytes and was asked for {first}-{stop or ''}"
        )
    return begin, end, version


def _check_status(response: httpx.Response, expected: tuple[int, ...]) -> None:
    code = response.status_code
    said = f"HTTP {code} {httpx.codes.get_reason_phrase(code)}".strip()
    if code in (408, 425, 429) or code >= 500:
        asked = re.fullmatch("[0-9]{1,9}", response.headers.get("retry-after", ""))
        raise TransientError(f"the server answers {said}", retry_after=float(asked[0]) if asked else 0.0)
    if code not in expected:
        raise _refused(response, f"answers {said}")


def _refused(response: httpx.Response, what: str) -> DataError:
    """For an answer that would be the same the next time."""
    fix = f"check the address and its credentials; or {ANOTHER_MIRROR}"
    return DataError(f"the server {what}", where=shown(response.url), fix=fix)
