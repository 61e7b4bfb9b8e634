"""The HTTP/1.1 connection: request bodies of any size, responses without copies, and a polite end for refused uploads.

Owns: what cheroot does not do well enough for files of 80 GB. It would read a whole chunk (and the unread rest of a
refused body) into memory, answer "100 Continue" before anybody looked at the request, take a chunked body that was not
read for the next request, copy every response block four times, and keep a thread for a client that says nothing. Used by: server.
Threading: one worker thread per request; nothing here is shared between connections but the slots.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import time
from collections.abc import Callable
from typing import Any

from cheroot import server as http
from cheroot import wsgi
from cheroot.workers import threadpool
from typing_extensions import Buffer

from archivia_fs.errors import FsError

log = logging.getLogger(__name__)

KEEP_ALIVE_DRAIN = 64 * 1024  # bytes of an unwanted body worth reading to keep the connection
LINGER_BYTES = 64 * 1024**2  # of a refused upload, read and thrown away so that the client gets to see the answer
LINGER_S = 5.0
QUICK_S = 15.0  # seconds without a byte from or to the client, for all but transfers
LINE_MAX = 4096  # bytes of a chunk-size line or a trailer line
TRAILERS_MAX = 64  # lines
TAKE_SLOT = "archivia.take_slot"  # where Request.take_slot stands in a request's environ


class BrokenBody(ConnectionError):
    """The client went away, or broke the framing, before the body was complete."""

    def __init__(self, message: str) -> None:
        super().__init__(errno.ECONNABORTED, message)  # cheroot closes such connections without a word


class Body:
    """wsgi.input: a request body with Content-Length or in chunks (RFC 9112 section 7.1), never more in memory than asked for.

    `length` is None for chunks. `on_first_read` sends "100 Continue" if the client waits for it.
    """

    def __init__(self, reader: Any, length: int | None, on_first_read: Callable[[], None] | None = None) -> None:
        self._reader = reader
        self._chunked = length is None
        self._left = length or 0  # bytes left of the body, or of the current chunk
        self._first_chunk = True
        self._on_first_read = on_first_read
        self._broken = False
        self.complete = length == 0

    def readinto(self, buffer: Buffer) -> int:
        """Fill `buffer` from the body; less only at its end. Raises BrokenBody, TimeoutError."""
        view = memoryview(buffer).cast("B")
        if self.complete or not view:
            return 0
        if self._on_first_read is not None:
            self._on_first_read()
            self._on_first_read = None
        done = 0
        try:
            while done < len(view) and not self.complete:
                if self._left == 0:
                    self._next_chunk()
                else:
                    done += self._receive(view[done : done + self._left])
        except BaseException:
            self._broken = True
            raise
        return done

    def read(self, size: int = -1) -> bytes:
        """WSGI's read: `size` bytes, less only at the end. Whoever reads without a size bounds the body first."""
        if size < 0:
            pieces = []
            while piece := self.read(64 * 1024):
                pieces.append(piece)
            return b"".join(pieces)
        buffer = bytearray(size)
        return bytes(memoryview(buffer)[: self.readinto(buffer)])

    def drain(self, limit: int) -> bool:
        """Throw away up to `limit` bytes; True if the body is complete then. Never asks a waiting client to go on."""
        if self.complete:
            return True
        if self._broken or self._on_first_read is not None or (not self._chunked and self._left > limit):
            return False
        scratch = bytearray(min(limit, 64 * 1024))
        with contextlib.suppress(OSError):
            while limit > 0 and not self.complete:
                limit -= self.readinto(scratch)
        return self.complete

    def _receive(self, view: memoryview) -> int:
        if self._reader.has_data():  # what came with the header
            data = self._reader.read1(len(view))
            count = len(data)
            view[:count] = data
        else:
            count = self._reader.raw.readinto(view) or 0
        if not count:
            raise BrokenBody("the client closed the connection inside the body")
        self._left -= count
        if not self._chunked:
            self.complete = self._left == 0
        return count

    def _next_chunk(self) -> None:
        if not self._first_chunk and self._line() != b"":
            raise BrokenBody("a chunk does not end where it says")
        self._first_chunk = False
        digits = self._line().split(b";", 1)[0].strip()
        if not digits or len(digits) > 16 or digits.strip(b"0123456789abcdefABCDEF"):
            raise BrokenBody(f"{digits[:20]!r} is no chunk size")
        self._left = int(digits, 16)
        if self._left == 0:
            for _ in range(TRAILERS_MAX):
                if not self._line():
                    self.complete = True
                    return
            raise BrokenBody("too many trailers")

    def _line(self) -> bytes:
        # Not readline at once: cheroot's reader is Python code, and a client may send 10,000 chunks a second.
        end = self._reader.peek(1).find(b"\n", 0, LINE_MAX)
        line: bytes = self._reader.read1(end + 1) if end >= 0 else self._reader.readline(LINE_MAX)
        if not line.endswith(b"\n"):
            raise BrokenBody("the client closed the connection inside the chunked framing")
        return line.rstrip(b"\r\n")


class _HeaderReader(http.HeaderReader):
    """Keeps cheroot from answering "100 Continue" at once: it compares the value letter by letter, we do not."""

    def __call__(self, rfile: Any, hdict: dict[bytes, bytes] | None = None) -> dict[bytes, bytes]:
        headers: dict[bytes, bytes] = super().__call__(rfile, hdict)
        if headers.get(b"Expect", b"").lower() == b"100-continue":
            headers[b"Expect"] = b"100-Continue"
        return headers


class Request(http.HTTPRequest):
    """One request and its response."""

    header_reader = _HeaderReader()
    _has_slot = False

    def take_slot(self) -> None:
        """From here to its end this request may wait for its client or for the store. Raises DAVError 503."""
        if not self._has_slot:
            self.server.slots.take()
            self._has_slot = True
            self.conn.socket.settimeout(self.server.timeout)

    def respond(self) -> None:
        try:
            self._respond()
        finally:
            if self._has_slot:
                self.server.slots.give_back()
                self.conn.hurry()

    def _respond(self) -> None:
        length_text: bytes | None = self.inheaders.get(b"Content-Length")
        if length_text is not None and (self.chunked_read or not length_text.isdigit()):
            # both framings in one request is how requests are smuggled past proxies (RFC 9112 section 6.1)
            self.close_connection = True
            self.simple_response("400 Bad Request", "Content-Length is wrong, or beside Transfer-Encoding.")
            return
        waits = self.inheaders.get(b"Expect") == b"100-Continue" and self.request_protocol == b"HTTP/1.1"
        length = None if self.chunked_read else int(length_text or 0)
        self.rfile = Body(self.conn.rfile, length, self._send_continue if waits else None)
        self.server.gateway(self).respond()
        if self.chunked_write:
            self.conn.wfile.write(b"0\r\n\r\n")
        if not self.rfile.complete:
            self._linger()

    def send_headers(self) -> None:
        if not self.rfile.drain(KEEP_ALIVE_DRAIN):
            self.close_connection = True
        super().send_headers()

    def write(self, chunk: Buffer) -> None:
        """Send a block of the body; not a byte is copied unless the length was unknown (chunked)."""
        if self.chunked_write:
            super().write(bytes(chunk))
            return
        view = memoryview(chunk).cast("B")
        sock: socket.socket = self.conn.socket
        while view:  # not sendall: there the timeout is for the whole block, here for any progress
            view = view[sock.send(view) :]

    def _send_continue(self) -> None:
        self.conn.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _linger(self) -> None:
        """Close only after the client had its chance to read the answer: unread bytes would turn the close into a
        reset, which wipes the answer out of the client's socket (RFC 9112 section 9.6). It is a transfer too, though one that
        nobody waits for."""
        self._has_slot = self._has_slot or self.server.slots.take_now()
        if not self._has_slot:
            return
        sock: socket.socket = self.conn.socket
        scratch = bytearray(64 * 1024)
        left, deadline = LINGER_BYTES, time.monotonic() + LINGER_S
        with contextlib.suppress(OSError):
            if self.server.ssl_adapter is None:
                sock.shutdown(socket.SHUT_WR)
            while left > 0 and (seconds := deadline - time.monotonic()) > 0:
                sock.settimeout(seconds)
                if not (count := sock.recv_into(scratch)):
                    break
                left -= count


class Connection(http.HTTPConnection):
    RequestHandlerClass = Request
    rbufsize = 64 * 1024  # bytes; chunks of this size and less come from one system call

    def __init__(self, server: Any, sock: socket.socket, makefile: Any) -> None:
        super().__init__(server, sock, makefile)
        self.hurry()

    def hurry(self) -> None:
        """What is not a transfer has to be quick."""
        self.socket.settimeout(min(QUICK_S, self.server.timeout))


class Gateway(wsgi.Gateway_10):
    """WSGI 1.0, except that an application may yield any buffer, not only bytes, and has to call TAKE_SLOT before a transfer."""

    def respond(self) -> None:
        self.env[TAKE_SLOT] = self.req.take_slot
        response = self.req.server.wsgi_app(self.env, self.start_response)
        try:
            for block in response:
                if len(block):
                    self.req.ensure_headers_sent()
                    self.req.write(block)
            self.req.ensure_headers_sent()
        except FsError as error:
            # The headers are out, so the one honest way to say "this is not all" is to break the connection.
            log.warning("%s %s broke off: %s", self.env["REQUEST_METHOD"], self.env["REQUEST_URI"], error)
            raise BrokenBody(str(error)) from error
        finally:
            if hasattr(response, "close"):
                response.close()


class WorkerPool(threadpool.ThreadPool):
    """Worker threads that neither keep the process alive nor wait for a client that does not read."""

    def _spawn_worker(self) -> threadpool.WorkerThread:
        worker = threadpool.WorkerThread(self.server)
        worker.name = f"webdav-{worker.name}"
        worker.daemon = True
        worker.start()
        return worker

    @staticmethod
    def _force_close(conn: Any) -> None:
        if conn is not None:
            with contextlib.suppress(OSError):
                conn.socket.shutdown(socket.SHUT_RDWR)
