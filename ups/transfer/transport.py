"""HTTP as a downloader needs it: one request, with an end to everything.

A request ends: by its deadline, by silence (see `ups.transfer.connection`), by being too slow. Redirects are followed
by hand (see `ups.transfer.address`). What may be gone at the next attempt is a `Fault`; what would be the same
again is an error of `ups.errors`.

This is httpcore, the engine of httpx. httpx's client bounds single reads only, reads redirects itself, chooses
a proxy without telling, and logs every address with the access key in its query.

Rejected: requests, urllib (single reads as well); HTTP/2 (many small answers are not what a dataset is); kept
connections (a stale one is one more fault).
"""

import functools
import re
import ssl
import time
import urllib.request
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import NamedTuple

import httpcore
import httpx

from ups.errors import DataError, PreflightError
from ups.transfer.address import (
    ANOTHER_MIRROR,
    Address,
    check_unresolved,
    public_addresses,
    redirected,
    same_endpoint,
    shown,
)
from ups.transfer.connection import Allowance, BoundedBackend
from ups.transfer.patience import Fault, Patience

_REDIRECTS = 5
_REDIRECT_STATUS = (301, 302, 303, 307, 308)
_USABLE_STATUS = (200, 206, 416)
_TRANSIENT_STATUS = (408, 425, 429)


class Validators(NamedTuple):
    """What tells two versions of an object apart."""

    etag: str | None
    last_modified: str | None

    @property
    def if_range(self) -> str | None:
        """For the If-Range header, which takes no weak ETag (RFC 9110, 13.1.5)."""
        value = self.last_modified if self.etag is None else self.etag
        # What is not ASCII may be received, but not sent.
        return None if value is None or value.startswith("W/") or not value.isascii() else value

    def differ(self, other: "Validators") -> bool:
        """Whether these are certainly two versions."""
        if self.etag is not None and other.etag is not None:
            return self.etag != other.etag
        return None not in (self.last_modified, other.last_modified) and (
            self.last_modified != other.last_modified
        )


class ContentRange(NamedTuple):
    """Bytes first to last of `total`, both included; total is None where the server does not know."""

    first: int
    last: int
    total: int | None


class Reply:
    """An answer whose body has not been read yet; with status 200, 206 or 416 for those outside."""

    def __init__(
        self, response: httpcore.Response, allowance: Allowance, patience: Patience, where: str
    ) -> None:
        self.status = response.status
        self.headers = httpx.Headers(response.headers)
        self.where = where
        self._response = response
        self._allowance = allowance
        self._patience = patience

    @property
    def validators(self) -> Validators:
        return Validators(self.headers.get("etag"), self.headers.get("last-modified"))

    @property
    def length(self) -> int | None:
        """Bytes of the body as announced."""
        text = self.headers.get("content-length", "")
        return int(text) if re.fullmatch("[0-9]+", text) and "transfer-encoding" not in self.headers else None

    @property
    def delimited(self) -> bool:
        """Whether the end of the body can be told from a cut connection."""
        return self.length is not None or "transfer-encoding" in self.headers

    def check_content(self) -> None:
        """Raises DataError where the body is no dataset, or not the stored bytes."""
        kind = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind in ("text/html", "application/xhtml+xml"):
            raise DataError(
                "the server sends an HTML page, not the file",
                where=self.where,
                fix=f"open the address in a browser to see what it says; or {ANOTHER_MIRROR}",
            )
        encoding = self.headers.get("content-encoding", "identity").strip().lower()
        if encoding not in ("", "identity"):
            raise DataError(
                f"the server sends the file encoded ({encoding[:20]!r}) although it was asked not to",
                where=self.where,
                fix=ANOTHER_MIRROR,
            )

    def content_range(self) -> ContentRange:
        """Of a 206.

        Raises:
            DataError: the header is missing or malformed, or contradicts the length.
        """
        text = self.headers.get("content-range", "")
        match = re.fullmatch(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)", text.strip())
        if match is None:
            raise self.lie(f"answers a range with Content-Range {text[:60]!r}")
        first, last = int(match[1]), int(match[2])
        total = None if match[3] == "*" else int(match[3])
        if last < first or (total is not None and last >= total):
            raise self.lie(f"answers a range with Content-Range {text[:60]!r}")
        if self.length is not None and self.length != last - first + 1:
            raise self.lie(f"announces {self.length} bytes and Content-Range {text[:60]!r}")
        return ContentRange(first, last, total)

    def unsatisfied_total(self) -> int | None:
        """Of a 416: the length of the object, if the server says it."""
        text = self.headers.get("content-range", "")
        match = re.fullmatch(r"bytes \*/([0-9]{1,18})", text.strip())
        return None if match is None else int(match[1])

    def lie(self, what: str) -> DataError:
        """The error for a server that breaks the protocol: the same again the next time."""
        return DataError(f"the server {what}", where=self.where, fix=ANOTHER_MIRROR)

    def blocks(self) -> Iterator[bytes]:
        """The body as it arrives, about 64 KiB at a time.

        Raises:
            Fault: it was cut, it stalled or was too slow.
            StorageError: the deadline has passed.
        """
        pace = self._patience.pace
        waited, received = (
            0.0,
            0,
        )  # in this window; what the caller does with a block is not the server's time
        with _faults(self._patience):
            since = time.monotonic()
            for block in self._response.iter_stream():
                self._patience.check(self.where)
                waited += time.monotonic() - since
                received += len(block)
                if waited >= pace.window_seconds:
                    if received < pace.minimum_speed * waited:
                        raise Fault(f"the server is too slow ({received / waited:.0f} bytes/s)")
                    waited, received = 0.0, 0
                yield block
                self._allowance.renew()
                since = time.monotonic()
        self._patience.check(self.where)


@contextmanager
def exchange(address: Address, patience: Patience, headers: Mapping[str, str]) -> Iterator[Reply]:
    """Ask for an object, following at most 5 redirects.

    Args:
        address: http or https.
        patience: ends the request; it is not repeated here.
        headers: beside the usual ones, e.g. Range.

    Raises:
        Fault: no connection, no answer, or a status that may be gone the next time (408, 425, 429, 5xx).
        DataError: the object is absent or access to it refused, or the redirects are not to be followed.
        StorageError: the deadline has passed.
    """
    url = address.url
    for _ in range(_REDIRECTS + 1):
        where = shown(url)
        patience.check(where)
        with ExitStack() as stack:
            with _faults(patience):
                reply = _send(stack, address, url, headers, patience)
            if reply.status not in _REDIRECT_STATUS:
                _check_status(reply)
                yield reply
                return
            url = redirected(url, reply.headers.get("location"))
    raise DataError(f"more than {_REDIRECTS} redirects", where=str(address), fix=ANOTHER_MIRROR)


def _send(
    stack: ExitStack, address: Address, url: httpx.URL, headers: Mapping[str, str], patience: Patience
) -> Reply:
    """Send the request of one hop; its connection is closed with the stack."""
    where = shown(url)
    named = same_endpoint(url, address.url)
    proxy = _proxy(url)
    # After a redirect the connection goes to the addresses that were checked.
    addresses = None
    if not named and proxy is None:
        try:
            addresses = public_addresses(url)
        except OSError as error:
            raise Fault(f"the host it redirects to cannot be found: {error.strerror}") from error
    elif not named:
        check_unresolved(url)
    sent = {
        "Host": url.netloc.decode("ascii"),
        "User-Agent": "universal-physics-stack",
        "Accept": "*/*",
        "Accept-Encoding": "identity",
        "Connection": "close",
        **headers,
    }
    if named and address.credentials is not None:
        sent["Authorization"] = _basic(address.credentials)
    allowance = Allowance(patience)
    pool = httpcore.ConnectionPool(
        ssl_context=_tls() if url.scheme == "https" else None,
        proxy=proxy,
        max_keepalive_connections=0,
        network_backend=BoundedBackend(allowance, addresses),
    )
    stack.enter_context(pool)
    try:
        response = pool.handle_request(
            httpcore.Request(
                "GET",
                httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
                headers=list(sent.items()),
            )
        )
    except httpcore.ConnectError as error:
        if _distrusted(error):
            raise PreflightError(
                "the server's certificate is not trusted",
                where=where,
                fix="name your authorities' certificates in SSL_CERT_FILE; check the clock",
            ) from error
        raise
    stack.callback(response.close)
    return Reply(response, allowance, patience, where)


@contextmanager
def _faults(patience: Patience) -> Iterator[None]:
    """Turns what httpcore raises into a Fault that says what happened."""
    try:
        yield
    except httpcore.TimeoutException as error:
        if patience.remaining() <= 0:
            raise Fault("the transfer was stopped") from error  # Patience.wait names the deadline
        raise Fault(f"nothing came from the server for {patience.pace.inactivity_seconds:g} s") from error
    except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.ProxyError) as error:
        raise Fault(f"the connection failed: {error or type(error).__name__}") from error


def _check_status(reply: Reply) -> None:
    code, where = reply.status, reply.where
    if code in _USABLE_STATUS:
        return
    known = code in HTTPStatus.__members__.values()
    said = f"HTTP {code} {HTTPStatus(code).phrase}" if known else f"HTTP {code}"
    if code in _TRANSIENT_STATUS or code >= 500:
        raise Fault(f"the server answers {said}", retry_after=_retry_after(reply.headers))
    if code in (404, 410):
        raise DataError(
            f"there is no such file ({said})", where=where, fix=f"check the address; or {ANOTHER_MIRROR}"
        )
    if code in (401, 403):
        raise DataError(
            f"access is refused ({said})",
            where=where,
            fix=f"check the credentials in the address; or {ANOTHER_MIRROR}",
        )
    raise DataError(f"the server answers {said}", where=where, fix=ANOTHER_MIRROR)


def _retry_after(headers: httpx.Headers) -> float:
    """Seconds; 0 where the server does not say, or says what cannot be read."""
    text = headers.get("retry-after", "").strip()
    if re.fullmatch("[0-9]{1,9}", text):
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


@functools.cache
def _tls() -> ssl.SSLContext:
    """Honours SSL_CERT_FILE and SSL_CERT_DIR; reading a bundle of authorities takes tens of milliseconds."""
    return httpx.create_ssl_context()


def _basic(credentials: tuple[str, str]) -> str:
    return f"Basic {b64encode(':'.join(credentials).encode()).decode('ascii')}"


def _proxy(url: httpx.URL) -> httpcore.Proxy | None:
    """The proxy that the environment names for an address.

    Raises:
        PreflightError: it is none that speaks HTTP; the message does not show it, as it may hold a password.
    """
    proxies = urllib.request.getproxies()
    named = proxies.get(url.scheme) or proxies.get("all")
    if named is None or urllib.request.proxy_bypass(url.netloc.decode("ascii")):
        return None
    try:
        proxy = httpx.URL(named if "://" in named else f"http://{named}")
    except httpx.InvalidURL:
        proxy = None
    if proxy is None or proxy.scheme not in ("http", "https") or not proxy.host:
        raise PreflightError(
            "the proxy that the environment names cannot be used",
            where=shown(url),
            fix="set http_proxy, https_proxy or all_proxy to http://host:port, or add the host to no_proxy",
        )
    return httpcore.Proxy(
        httpcore.URL(scheme=proxy.raw_scheme, host=proxy.raw_host, port=proxy.port, target=b"/"),
        auth=(proxy.username, proxy.password) if proxy.userinfo else None,
        ssl_context=_tls() if proxy.scheme == "https" else None,
    )


def _distrusted(error: BaseException | None) -> bool:
    """Whether a certificate was refused: it will be the next time as well."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False
