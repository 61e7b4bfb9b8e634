"""GET, HEAD and PUT: bytes between the socket and the core in blocks of 1 MiB, whatever the size of the file.

Owns: their HTTP rules (RFC 9110 sections 8, 9.3, 13, 14). Used by: server. Threading: one object per request.
"""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus
from urllib.parse import parse_qs

from typing_extensions import Buffer

from archivia_fs.content import Content
from archivia_fs.errors import Exists, StoreError
from archivia_fs.vfs.put import PutHandle
from webdav import listing
from webdav.conditions import Span, expected_etags, requested_span
from webdav.connection import TAKE_SLOT, Body, BrokenBody
from webdav.convert import Headers, fail, http_date, reason
from webdav.methods import NameMethods, Response, StartResponse, mtime_headers, oc_mtime
from webdav.resources import FILE_MODE, Environ, File, Folder

BLOCK = 1024**2  # bytes; smaller ones cost measurably more per byte, larger ones only memory


class DriveServer(NameMethods):
    """All methods of the drive."""

    def do_GET(self, environ: Environ, start_response: StartResponse) -> Response:
        file = self._shown(environ)
        self._evaluate_if_headers(file, environ)
        if isinstance(file, Folder):
            members = file.members()  # here an error of the core still becomes a status
            start_response(reason(HTTPStatus.OK), [*listing.HEADERS])
            return listing.page(file, members)
        environ[TAKE_SLOT]()
        content = self._vfs.snapshot(file.caller, file.stat.ino)
        try:
            span = requested_span(environ, content.size, content.etag, file.stat.mtime_ns)
            self._start(start_response, file, content.size, content.etag, span)
        except BaseException:
            content.close()
            raise
        span = span or Span(0, content.size)
        content.expect(span.start, span.start + span.size)
        return Blocks(content, span)

    def do_HEAD(self, environ: Environ, start_response: StartResponse) -> Response:
        """GET's headers without opening anything. Range is for GET only (RFC 9110 14.2)."""
        file = self._shown(environ)
        self._evaluate_if_headers(file, environ)
        if isinstance(file, Folder):
            start_response(reason(HTTPStatus.OK), [*listing.HEADERS])
            return []
        self._start(start_response, file, file.stat.size, file.stat.etag, None)
        return []

    def _shown(self, environ: Environ) -> File | Folder:
        node = self._existing(environ)
        if isinstance(node, Folder):
            return node
        assert isinstance(node, File)
        size = parse_qs(environ.get("QUERY_STRING", "")).get("size")
        if size:  # of a preview: /Thumbnails/a/b.dng.jpg?size=256
            node.stat = self._vfs.variant(node.caller, node.stat.ino, size[-1])
        return node

    def _start(self, start_response: StartResponse, file: File, size: int, etag: str, span: Span | None) -> None:
        headers: Headers = [
            ("Content-Type", file.get_content_type()),
            ("Content-Length", str(size if span is None else span.size)),
            ("ETag", f'"{etag}"'),
            ("Last-Modified", http_date(file.stat.mtime_ns)),
            ("Accept-Ranges", "bytes"),
            ("X-Content-Type-Options", "nosniff"),
        ]
        if file.get_content_type().endswith(("html", "xml")):
            # A browser would run its scripts with the password of who reads it: whoever may write could do all that the reader may.
            headers.append(("Content-Security-Policy", "sandbox"))
        if span is not None:
            headers.append(("Content-Range", f"bytes {span.start}-{span.start + span.size - 1}/{size}"))
        start_response(reason(HTTPStatus.OK if span is None else HTTPStatus.PARTIAL_CONTENT), headers)

    def do_PUT(self, environ: Environ, start_response: StartResponse) -> Response:
        """The new content is invisible until all of it is stored and committed; whatever goes wrong before leaves the old."""
        path = environ["PATH_INFO"]
        if "HTTP_CONTENT_RANGE" in environ:
            fail(HTTPStatus.BAD_REQUEST, "A part of a file cannot be PUT (RFC 9110 9.3.4); send the whole.")
        if environ.get("HTTP_CONTENT_ENCODING", "identity").lower() not in ("identity", ""):
            fail(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Send the file without Content-Encoding.")
        existing = self._provider.get_resource_inst(path, environ)
        if isinstance(existing, Folder):
            fail(HTTPStatus.METHOD_NOT_ALLOWED, f"{path!r} is a folder.")
        real_path = existing.real_path if isinstance(existing, File) else path
        folder, name = self._parent(real_path, environ)
        self._evaluate_if_headers(existing, environ)
        if existing is None:
            self._provider.refuse_hidden(folder, name)
            self._may_write(folder.path, environ)
        self._may_write(path, environ)
        body: Body = environ["wsgi.input"]
        expected = _expected_size(environ)
        mtime_ns = oc_mtime(environ)
        exclusive = environ.get("HTTP_IF_NONE_MATCH", "").strip() == "*"
        environ[TAKE_SLOT]()
        # While this runs nobody else gets a lock on the name: the permission found above holds to the end.
        with self._provider.locks.write_transaction(
            url=folder.path + name,
            token_list=environ["wsgidav.ifLockTokenList"],
            principal=environ["wsgidav.user_name"],
        ):
            handle = self._vfs.put(
                folder.caller,
                folder.stat.ino,
                name,
                size_hint=expected,
                mtime_ns=mtime_ns,
                mode=FILE_MODE,
                exclusive=exclusive,
                if_etags=expected_etags(environ),
            )
            try:
                received = _pump(body, handle)
                if expected is not None and received != expected:
                    fail(HTTPStatus.BAD_REQUEST, f"{expected} bytes were announced, {received} came.")
                if existing is not None and "HTTP_IF_MATCH" in environ:  # it may have changed during an hour of upload
                    self._evaluate_if_headers(self._provider.get_resource_inst(path, environ), environ)
                self._may_write(real_path, environ)  # another gateway's clients may have locked it meanwhile
                stat, created = handle.commit()
            except Exists:
                fail(HTTPStatus.PRECONDITION_FAILED, f"{path!r} came into being meanwhile.")
            except BrokenBody as error:
                fail(HTTPStatus.BAD_REQUEST, f"The upload is incomplete, nothing was changed: {error.strerror}.")
            except TimeoutError:
                fail(HTTPStatus.REQUEST_TIMEOUT, "The upload stopped, nothing was changed.")
            finally:
                handle.abort()
        headers = [("ETag", f'"{stat.etag}"'), *mtime_headers(mtime_ns), ("Content-Length", "0")]
        start_response(reason(HTTPStatus.CREATED if created else HTTPStatus.NO_CONTENT), headers)
        return []


def _expected_size(environ: Environ) -> int | None:
    """Content-Length, or what Finder announces beside its chunks; None if nobody says."""
    text = environ.get("CONTENT_LENGTH") or environ.get("HTTP_X_EXPECTED_ENTITY_LENGTH") or ""
    return int(text) if text.isdigit() else None


def _pump(body: Body, handle: PutHandle) -> int:
    """The body into the handle, which copies what it takes; returns its size in bytes."""
    received = 0
    block = memoryview(bytearray(BLOCK))
    while count := body.readinto(block):
        handle.write(block[:count])
        received += count
    return received


class Blocks:
    """A response body from a pinned revision; closes it at the end and when the client breaks off."""

    def __init__(self, content: Content, span: Span) -> None:
        self._content = content
        self._span = span

    def __iter__(self) -> Iterator[Buffer]:
        offset, end = self._span.start, self._span.start + self._span.size
        while offset < end:
            block = self._content.pread(offset, min(BLOCK, end - offset))
            count = memoryview(block).nbytes
            if count == 0:
                raise StoreError(f"the content ends at byte {offset}, {end - offset} before its size says so")
            offset += count
            yield block

    def close(self) -> None:
        self._content.close()
