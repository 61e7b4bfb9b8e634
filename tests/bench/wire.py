"""What crosses the wire to the S3 server: a counting proxy before it.

Owns: the proxy's sockets and threads. Used by: measures, for rows that count, as it costs speed.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import urlsplit

from tests.s3_servers import S3Server

_STEP = 256 * 1024  # bytes
_HEAD = b" HTTP/1.1\r\n"  # once in every request


class Wire:
    """Since it began: bytes in both directions, those that the server sent, and requests."""

    def __init__(self, server: S3Server) -> None:
        host = urlsplit(server.endpoint)
        self._target = (host.hostname or "127.0.0.1", host.port or 80)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self.moved = self.received = self.requests = 0
        self.server = replace(server, endpoint=f"http://127.0.0.1:{self._listener.getsockname()[1]}")
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                upstream = socket.create_connection(self._target)
                for pump, source, sink in ((self._ask, client, upstream), (self._answer, upstream, client)):
                    source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    threading.Thread(target=pump, args=(source, sink), daemon=True).start()

    def _ask(self, source: socket.socket, sink: socket.socket) -> None:
        end = b""  # of what came before: a mark may come in two pieces
        for data in _pumped(source, sink):
            with self._lock:
                self.moved += len(data)
                self.requests += (end + data).count(_HEAD)
            end = (end + data)[1 - len(_HEAD) :]

    def _answer(self, source: socket.socket, sink: socket.socket) -> None:
        for data in _pumped(source, sink):
            with self._lock:
                self.moved += len(data)
                self.received += len(data)


def _pumped(source: socket.socket, sink: socket.socket) -> Iterator[bytes]:
    """Each piece before it is sent on."""
    with contextlib.suppress(OSError):
        while data := source.recv(_STEP):
            yield data
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def counted(server: S3Server) -> Iterator[Wire]:
    """The server behind a proxy that counts."""
    wire = Wire(server)
    try:
        yield wire
    finally:
        wire.close()
