"""Addresses of remote files: what the user may name, and where a server may send us from there.

The address a user named may be anything: a mirror, an institute's server on a private net, localhost, a file.
A redirect is the *server's* wish, and a server, or whoever speaks in its name, must not use us to reach what
only we can reach: the scheme stays, and the host must have public addresses only (fault matrix, row 15),
unless it is the host and port that the user named. The addresses that were checked are the ones connected to,
so that a name server cannot answer differently the second time.

No message holds a credential: neither `user:password@` nor the values of a query (`?key=...`).
"""

import hashlib
import ipaddress
import socket
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpx

from ups.errors import ConfigurationError, DataError

ANOTHER_MIRROR = "use another mirror, or fetch the file by hand and name it as file:///absolute/path"

_PORTS = {"http": 80, "https": 443}

# NAT64 (RFC 6052): an IPv4 address in the last 32 bits, reached through a translator.
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


@dataclass(frozen=True)
class Address:
    """An address as the user named it, taken apart.

    Attributes:
        scheme: http, https or file.
        url: without credentials; what is asked for.
        credentials: (user, password), sent to the named host and port only.
        path: the file, where the scheme is file.
    """

    scheme: str
    url: httpx.URL
    credentials: tuple[str, str] | None = field(default=None, repr=False)
    path: Path | None = None

    def __str__(self) -> str:
        return shown(self.url) if self.path is None else str(self.path)

    @property
    def digest(self) -> str:
        """Tells addresses apart without keeping their secrets."""
        return hashlib.sha256(str(self.url).encode()).hexdigest()


def parse_address(address: str) -> Address:
    """Take an address apart.

    Raises:
        ConfigurationError: it is not http://, https:// or file:// with an absolute path.
    """
    fix = "write https://host/path, http://host/path or file:///absolute/path"
    scheme = address.partition("://")[0].lower()
    try:
        if scheme == "file":
            return _parse_file(address, fix)
        url = httpx.URL(address)
        if url.scheme not in _PORTS or not url.host:
            raise ValueError
        if url.port is not None and not 0 < url.port < 2**16:
            raise ValueError
    except (httpx.InvalidURL, ValueError):
        # Neither the text nor what the parser says of it: it may hold a password.
        raise ConfigurationError("this is not the address of a file", where=_safe(address), fix=fix) from None
    credentials = (url.username, url.password) if url.userinfo else None
    return Address(url.scheme, url.copy_with(userinfo=b"", fragment=None), credentials)


def _parse_file(address: str, fix: str) -> Address:
    parts = urlsplit(address)
    path = Path(unquote(parts.path))
    if parts.netloc not in ("", "localhost") or not path.is_absolute() or parts.query or parts.fragment:
        raise ConfigurationError(
            "a file's address has an absolute path, and neither host, query nor fragment",
            where=_safe(address),
            fix=f"{fix}; a ? or # in the path is written %3F or %23",
        )
    return Address("file", httpx.URL(path.as_uri()), path=path)


def shown(url: httpx.URL) -> str:
    """An address for messages: no credentials, no values of the query."""
    bare = str(url.copy_with(userinfo=b"", query=None, fragment=None))
    return f"{bare}?..." if url.query else bare


def _safe(address: str) -> str:
    """What can be shown of an address that cannot be taken apart: nothing before an @ or after a ?."""
    return repr(address.rpartition("@")[2].partition("?")[0][:100])


def same_endpoint(one: httpx.URL, other: httpx.URL) -> bool:
    """Whether two addresses have the scheme, host and port in common."""

    def endpoint(url: httpx.URL) -> tuple[str, bytes, int | None]:
        return url.scheme, url.raw_host.lower(), url.port or _PORTS.get(url.scheme)

    return endpoint(one) == endpoint(other)


def redirected(url: httpx.URL, location: str | None) -> httpx.URL:
    """The address that an answer from `url` sends us to.

    Raises:
        DataError: there is none, it has another scheme, or it brings its own credentials.
    """
    where = shown(url)
    if not location:
        raise DataError("the server redirects to nowhere", where=where, fix=ANOTHER_MIRROR)
    try:
        target = url.join(location)
    except (httpx.InvalidURL, ValueError):
        raise DataError(
            "the server redirects to what is no address", where=where, fix=ANOTHER_MIRROR
        ) from None
    if target.scheme != url.scheme:
        raise DataError(
            f"the server redirects from {url.scheme} to {target.scheme}, which is not followed",
            where=where,
            fix=f"if you trust it, name {shown(target)} as the address",
        )
    if not target.host:
        raise DataError("the server redirects to what is no address", where=where, fix=ANOTHER_MIRROR)
    if target.userinfo:
        raise DataError("the server redirects with credentials of its own", where=where, fix=ANOTHER_MIRROR)
    return target.copy_with(fragment=None)


def public_addresses(url: httpx.URL) -> list[str]:
    """All addresses of a host that a redirect leads to, each of them public.

    Raises:
        DataError: one of them is private, loopback, link-local or reserved; or this is no host's name.
        OSError: the name cannot be resolved now.
    """
    host = url.raw_host.decode("ascii")
    try:
        found = socket.getaddrinfo(host, url.port or _PORTS[url.scheme], type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise DataError(
            "the server redirects to what is no address", where=shown(url), fix=ANOTHER_MIRROR
        ) from error
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    for address in addresses:
        if not is_public(address):
            raise _not_public(url, address)
    return addresses


def check_unresolved(url: httpx.URL) -> None:
    """As `public_addresses`, where a proxy resolves the name: what can be told without resolving.

    Raises:
        DataError: the host is localhost, or an address that is not public.
    """
    host = url.raw_host.decode("ascii").lower().rstrip(".")
    try:
        numeric = str(ipaddress.ip_address(host.partition("%")[0]))
    except ValueError:
        if host == "localhost" or host.endswith(".localhost"):
            raise _not_public(url, host) from None
        return
    if not is_public(numeric):
        raise _not_public(url, numeric)


def is_public(address: str) -> bool:
    """Whether an IP address is one that anybody on the Internet could reach, also behind a mapping."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        inner = parsed.ipv4_mapped or parsed.sixtofour
        if parsed in _NAT64:
            inner = ipaddress.IPv4Address(int(parsed) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return parsed.is_global and not parsed.is_multicast and not parsed.is_reserved


def _not_public(url: httpx.URL, address: str) -> DataError:
    return DataError(
        f"the server redirects to a host that is not public ({address}), which is not followed",
        where=shown(url),
        fix="if this is your own net, name that address yourself",
    )
