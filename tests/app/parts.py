"""Which parts of files are sent to an S3 server: a proxy before it, through which the program goes.

Owns: the proxy's sockets and threads. Used by: the tests of resuming.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import urlsplit

from tests.s3_servers import S3Server

_STEP = 64 * 1024  # bytes
_PART = re.compile(rb"PUT \S*/objects/\S*[?&]partNumber=(\d+)\S* HTTP/1\.1\r\n((?:[^\r\n]+\r\n)*)\r\n")
_HEAD_MAX = 8 * 1024  # bytes of a request's head


class Parts:
    """`sent`, `copied`: the numbers of the parts that were asked for, in that order. `moved`: bytes in both directions."""

    def __init__(self, server: S3Server) -> None:
        host = urlsplit(server.endpoint)
        self._target = (host.hostname or "127.0.0.1", host.port or 80)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self.sent: list[int] = []
        self.copied: list[int] = []
        self.moved = 0
        self.server = replace(server, endpoint=f"http://127.0.0.1:{self._listener.getsockname()[1]}")
        threading.Thread(target=self._accept, daemon=True).start()

    def clear(self) -> None:
        with self._lock:
            self.sent.clear()
            self.copied.clear()
            self.moved = 0

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                upstream = socket.create_connection(self._target)
                threading.Thread(target=self._ask, args=(client, upstream), daemon=True).start()
                threading.Thread(target=self._answer, args=(upstream, client), daemon=True).start()

    def _ask(self, source: socket.socket, sink: socket.socket) -> None:
        tail = b""  # what came before: a head may come in two pieces
        for data in self._pumped(source, sink):
            tail += data
            end = 0
            for found in _PART.finditer(tail):
                with self._lock:
                    (self.copied if b"x-amz-copy-source" in found[2].lower() else self.sent).append(int(found[1]))
                end = found.end()
            tail = tail[max(end, len(tail) - _HEAD_MAX) :]

    def _answer(self, source: socket.socket, sink: socket.socket) -> None:
        for _ in self._pumped(source, sink):
            pass

    def _pumped(self, source: socket.socket, sink: socket.socket) -> Iterator[bytes]:
        """Each piece before it is sent on."""
        source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(OSError):
            while data := source.recv(_STEP):
                with self._lock:
                    self.moved += len(data)
                yield data
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def counted(server: S3Server) -> Iterator[Parts]:
    """The server behind a proxy."""
    parts = Parts(server)
    try:
        yield parts
    finally:
        parts.close()
