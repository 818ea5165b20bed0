"""Connections that end in time, and lead where they were meant to lead.

An HTTP library bounds each single read. An answer that arrives byte by byte, in its header or in the frame of a
chunk, can then last for ever. Here all reads of a connection share one allowance, which only bytes of the
*body* renew.

Rejected: a watchdog thread that shuts the connection down. h5py holds a lock while it reads a remote file, and a
thread in which the garbage collector drops an h5py object waits for that lock: the two would wait for each other.
"""

import ssl
import time
from collections.abc import Iterable, Sequence
from typing import Any

import httpcore

from ups.transfer.patience import Patience


class Allowance:
    """Seconds until something must have come: the time of inactivity, and never beyond the deadline."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self.renew()

    def renew(self) -> None:
        """Something came."""
        seconds = min(self._patience.pace.inactivity_seconds, self._patience.remaining())
        self._ends = time.monotonic() + seconds

    def left(self) -> float:
        """Raises httpcore.ReadTimeout when it is used up."""
        seconds = self._ends - time.monotonic()
        if seconds <= 0:
            raise httpcore.ReadTimeout
        return seconds


class BoundedBackend(httpcore.NetworkBackend):
    """Connects to the given addresses, or to those of the host's name, within an allowance.

    TLS and the Host header still go by the name: only the name server has no say any more.
    """

    def __init__(self, allowance: Allowance, addresses: Sequence[str] | None) -> None:
        self._allowance = allowance
        self._addresses = addresses
        self._sockets = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        refused: Exception = httpcore.ConnectError("the host has no address")
        for target in [host] if self._addresses is None else self._addresses:
            try:
                stream = self._sockets.connect_tcp(
                    target, port, self._allowance.left(), local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                refused = error
                continue
            return _BoundedStream(stream, self._allowance)
        raise refused


class _BoundedStream(httpcore.NetworkStream):
    """A connection whose every operation ends with the allowance."""

    def __init__(self, stream: httpcore.NetworkStream, allowance: Allowance) -> None:
        self._stream = stream
        self._allowance = allowance

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._allowance.left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._allowance.left())

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        secured = self._stream.start_tls(ssl_context, server_hostname, self._allowance.left())
        return _BoundedStream(secured, self._allowance)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
