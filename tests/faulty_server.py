"""A real HTTP server on localhost that errs on request.

It speaks HTTP/1.1 on bare sockets, so that a script can break it anywhere: each request consumes one step of the
script, and when the script is used up the server is honest. What was asked is in `requests`.
"""

import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

ETAG = '"v1"'


@dataclass(frozen=True)
class Request:
    path: str
    headers: dict[str, str]

    @property
    def range(self) -> str | None:
        return self.headers.get("range")


@dataclass
class Exchange:
    """One request and the connection to answer it on."""

    server: "FaultyServer"
    connection: socket.socket
    request: Request

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def reset(self) -> None:
        """End the connection by RST instead of FIN."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


Step = Callable[[Exchange], None]


@dataclass
class FaultyServer:
    """Serves `body` at every path.

        with FaultyServer(body, script=[serve(stop=1000)]) as server:
            download(server.address, ...)

    `always` replaces honesty once the script is used up; `delay` is how many seconds connections are refused at
    first.
    """

    body: bytes
    script: list[Step] = field(default_factory=list)
    always: Step | None = None
    etag: str | None = ETAG
    last_modified: str | None = None
    delay: float = 0.0
    tls: ssl.SSLContext | None = None
    requests: list[Request] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._stopped = threading.Event()
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        self.port = self._listener.getsockname()[1]
        if not self.delay:
            self._listener.listen(64)
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    @property
    def address(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}/file.hdf5"

    @property
    def ranges(self) -> list[str | None]:
        """The Range header of each request."""
        return [request.range for request in self.requests]

    def pause(self, seconds: float) -> None:
        """Wait, but not beyond the end of the server."""
        self._stopped.wait(seconds)

    def _accept(self) -> None:
        if self.delay:
            time.sleep(self.delay)
            self._listener.listen(64)
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._handle, args=(connection,), daemon=True).start()

    def _handle(self, connection: socket.socket) -> None:
        # A client that refuses an answer hangs up in the middle of it.
        with suppress(OSError), connection:
            if self.tls is not None:
                connection = self.tls.wrap_socket(connection, server_side=True)
            request = _read_request(connection)
            if request is None:
                return
            self.requests.append(request)
            step = self.script.pop(0) if self.script else self.always or serve()
            step(Exchange(self, connection, request))
            connection.close()


def _read_request(connection: socket.socket) -> Request | None:
    received = b""
    while b"\r\n\r\n" not in received:
        data = connection.recv(65536)
        if not data:
            return None
        received += data
    first, *lines = received.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    return Request(first.split(" ")[1], {name.lower(): value for name, value in headers.items()})


def serve(
    *,
    body: bytes | None = None,
    status: int | None = None,
    headers: dict[str, str | None] | None = None,
    stop: int | None = None,
    flip: int | None = None,
    etag: str | None = None,
    ignore_range: bool = False,
    chunked: bool = False,
    surplus: bytes = b"",
    piece: int = 1 << 16,
    seconds: float = 0.0,
    stall: bool = False,
    reset: bool = False,
) -> Step:
    """The honest answer but for the changes asked for.

    Args:
        body: another object, for this answer only.
        status: another status.
        headers: put in the place of the honest ones; None removes one.
        stop: bytes of the body after which the connection ends.
        flip: byte of the object of which one bit is turned.
        etag: another ETag than the server's.
        ignore_range: the whole object, whatever was asked for.
        chunked: Transfer-Encoding: chunked, no Content-Length.
        surplus: sent after the body.
        piece, seconds: size of the pieces that the body is sent in, and pause between them.
        stall: after `stop` bytes, silence instead of the end.
        reset: the end is RST.
    """

    def step(exchange: Exchange) -> None:
        server, asked = exchange.server, exchange.request.headers
        whole = server.body if body is None else body
        tag = server.etag if etag is None else etag
        if flip is not None:
            whole = whole[:flip] + bytes([whole[flip] ^ 1]) + whole[flip + 1 :]
        fields: dict[str, str | None] = {"Content-Type": "application/octet-stream", "ETag": tag}
        fields["Last-Modified"] = server.last_modified
        code, sent = 200, whole
        same = asked.get("if-range") in (None, tag, server.last_modified)
        if (wanted := asked.get("range")) and same and not ignore_range:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, end = int(first), min(int(last or len(whole) - 1), len(whole) - 1)
            if start >= len(whole):
                code, sent, fields["Content-Range"] = 416, b"", f"bytes */{len(whole)}"
            else:
                code, sent = 206, whole[start : end + 1]
                fields["Content-Range"] = f"bytes {start}-{end}/{len(whole)}"
        fields["Transfer-Encoding" if chunked else "Content-Length"] = (
            "chunked" if chunked else str(len(sent))
        )
        fields |= headers or {}
        lines = [
            f"HTTP/1.1 {status or code} Said",
            *(f"{k}: {v}" for k, v in fields.items() if v is not None),
        ]
        exchange.send(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        limit = len(sent) if stop is None else stop
        for begin in range(0, limit, piece):
            block = sent[begin : min(begin + piece, limit)]
            exchange.send(b"%x\r\n%s\r\n" % (len(block), block) if chunked else block)
            if seconds:
                exchange.server.pause(seconds)
        if chunked and stop is None:
            exchange.send(b"0\r\n\r\n")
        exchange.send(surplus)
        if stall:
            exchange.server.pause(60)
        if reset:
            exchange.reset()

    return step


def says(status: int, body: bytes = b"no", **headers: str) -> Step:
    """A plain answer; header names are written with underscores."""
    return serve(
        body=body,
        status=status,
        ignore_range=True,
        headers={name.replace("_", "-"): value for name, value in headers.items()},
    )


def redirects(location: str, status: int = 302) -> Step:
    """A redirect; {port} in the location is the server's."""

    def step(exchange: Exchange) -> None:
        says(status, Location=location.format(port=exchange.server.port))(exchange)

    return step


def raw(*pieces: bytes, seconds: float = 0.0, reset: bool = False, stall: bool = False) -> Step:
    """These bytes instead of an answer, with pauses between."""

    def step(exchange: Exchange) -> None:
        for data in pieces:
            exchange.send(data)
            exchange.server.pause(seconds)
        if stall:
            exchange.server.pause(60)
        if reset:
            exchange.reset()

    return step


def dripping(data: bytes, seconds: float) -> Step:
    """These bytes one by one."""
    return raw(*(data[i : i + 1] for i in range(len(data))), seconds=seconds)
