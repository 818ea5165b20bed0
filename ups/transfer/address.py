"""Addresses of remote files: what the user may name, and where a server may send us from there.

The address a user named may be anything: a mirror, an institute's server on a private net, localhost, a file.
A redirect is the *server's* wish, and a server, or whoever speaks in its name, must not use us to reach what
only we can reach: the scheme stays, and the host must be public, unless it is the one that the user named.

No message holds a credential: neither `user:password@` nor the values of a query (`?key=...`).
"""

import hashlib
import ipaddress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpx

from ups.errors import ConfigurationError, DataError

ANOTHER_MIRROR = "use another mirror, or fetch the file by hand and name it as file:///absolute/path"

# NAT64 (RFC 6052): an IPv4 address in the last 32 bits, reached through a translator.
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


@dataclass(frozen=True)
class Address:
    """An address as the user named it, taken apart.

    Attributes:
        url: without credentials; what is asked for.
        credentials: (user, password), sent to the named scheme, host and port only.
        path: the file, where the scheme is file.
    """

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
    try:
        if address.partition("://")[0].lower() == "file":
            parts = urlsplit(address)
            path = Path(unquote(parts.path))
            if (
                parts.netloc not in ("", "localhost")
                or parts.query
                or parts.fragment
                or not path.is_absolute()
            ):
                raise ValueError
            return Address(httpx.URL(path.as_uri()), path=path)
        url = httpx.URL(address)
        if url.scheme not in ("http", "https") or not url.host or not 0 < (url.port or 80) < 2**16:
            raise ValueError
    except (httpx.InvalidURL, ValueError):
        # Neither what the parser says nor what is before an @ or after a ?: it may be a password.
        raise ConfigurationError(
            "this is not the address of a file",
            where=repr(address.rpartition("@")[2].partition("?")[0][:100]),
            fix="write https://host/path, http://host/path or file:///absolute/path (with %3F for ?, %23 for #)",
        ) from None
    credentials = (url.username, url.password) if url.userinfo else None
    return Address(url.copy_with(userinfo=b"", fragment=None), credentials)


def shown(url: httpx.URL) -> str:
    """An address for messages: no credentials, no values of the query."""
    bare = str(url.copy_with(userinfo=b"", query=None, fragment=None))
    return f"{bare}?..." if url.query else bare


def check_redirect(url: httpx.URL, target: httpx.URL) -> None:
    """What can be said of a redirect from `url` to another host before its name is resolved.

    Raises:
        DataError: another scheme, credentials of its own, or a host that names itself as not public.
    """
    if target.scheme != url.scheme:
        raise DataError(
            f"the server redirects from {url.scheme} to {target.scheme}, which is not followed",
            where=shown(url),
            fix=f"if you trust it, name {shown(target)} as the address",
        )
    if target.userinfo:
        raise DataError(
            "the server redirects with credentials of its own", where=shown(url), fix=ANOTHER_MIRROR
        )
    check_public(target, target.host)


def check_public(url: httpx.URL, host: str) -> None:
    """Raises DataError where a host that a redirect led to is localhost, or an IP address that is not public."""
    try:
        public = is_public(host)
    except ValueError:  # a name
        public = not f".{host.rstrip('.')}".endswith(".localhost")
    if not public:
        raise DataError(
            f"the server redirects to a host that is not public ({host}), which is not followed",
            where=shown(url),
            fix="if this is your own net, name that address yourself",
        )


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
