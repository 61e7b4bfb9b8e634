"""The WebDAV methods about names: PROPFIND, PROPPATCH, MKCOL, DELETE, COPY, MOVE, LOCK, UNLOCK.

Owns: their HTTP rules (RFC 4918 section 9); the work is one Vfs call each. Stands on wsgidav's RequestServer for OPTIONS, LOCK and
UNLOCK. Used by: transfer. Threading: one object per request.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring
from typing_extensions import Buffer
from wsgidav import util, xml_tools
from wsgidav.dav_error import PRECONDITION_CODE_PropfindFiniteDepth
from wsgidav.request_server import RequestServer

from archivia_fs.errors import Exists, FsError, NotFound
from archivia_fs.types import RenameFlag, SetAttr
from archivia_fs.vfs.view import is_view
from webdav.conditions import State, check_http, parse_if
from webdav.convert import Headers, fail, lock_path, reason, split_path, url_path
from webdav.locks import covering
from webdav.properties import Update, Wanted, multistatus
from webdav.provider import VfsProvider
from webdav.resources import FOLDER_MODE, Environ, File, Folder, Node

StartResponse = Callable[[str, Headers], Any]
CHANGING = frozenset({"PUT", "MKCOL", "DELETE", "COPY", "MOVE", "PROPPATCH", "LOCK"})
Response = Iterable[Buffer]


class NameMethods(RequestServer):
    """What a method needs is checked before anything is done: syntax, existence, conditions, locks, in this order."""

    def __init__(self, provider: VfsProvider) -> None:
        super().__init__(provider)  # type: ignore[no-untyped-call]
        self._provider = provider
        self._vfs = provider.vfs

    def __call__(self, environ: Environ, start_response: StartResponse) -> Response:
        method = environ["REQUEST_METHOD"]
        environ["wsgidav.user_name"] = environ["wsgidav.auth.user_name"]
        if "HTTP_DEPTH" in environ:
            environ["HTTP_DEPTH"] = environ["HTTP_DEPTH"].strip().lower()
        if method not in self._possible_methods or method == "POST":
            allowed = ", ".join(sorted(set(self._possible_methods) - {"POST"}))
            fail(HTTPStatus.METHOD_NOT_ALLOWED, f"There is no {method} on this drive.", headers=[("Allow", allowed)])
        if method in CHANGING:
            start_response = self._durably(start_response)
        response: Response = getattr(self, f"do_{method}")(environ, start_response)
        return response

    def _durably(self, start_response: StartResponse) -> StartResponse:
        """2xx means that it survives a power cut too."""

        def start(status: str, headers: Headers) -> Any:
            if status.startswith("2"):
                self._vfs.sync()
            return start_response(status, headers)

        return start

    # --- conditions and locks ----------------------------------------------------------------------------------

    def _evaluate_if_headers(self, res: Node | None, environ: Environ) -> None:
        """Raise DAVError 412 or 304. `res` None: nothing is there. wsgidav's LOCK and UNLOCK come through here too."""
        stat = None if res is None else res.stat
        check_http(environ, None if stat is None or stat.is_dir else stat.etag, None if stat is None else stat.mtime_ns)
        header = parse_if(environ.get("HTTP_IF"))
        environ["wsgidav.conditions.if"] = header
        environ["wsgidav.ifLockTokenList"] = header.tokens
        own = lock_path(environ["PATH_INFO"])
        if not header.holds(lambda path: self._state(path or own, environ)):
            fail(HTTPStatus.PRECONDITION_FAILED, "The If header's conditions do not hold.")

    def _state(self, path: str, environ: Environ) -> State:
        with contextlib.suppress(FsError):
            node = self._provider.get_resource_inst(path, environ)
            tokens = frozenset(lock.token for lock in covering(self._vfs.locks(), path))
            return State(None if node is None or node.stat.is_dir else node.stat.etag, tokens)
        return State(None, frozenset())

    def _may_write(self, path: str, environ: Environ, *, deep: bool = False) -> None:
        """Raise DAVError 423 if a lock whose token was not shown protects `path` (or, deep, anything below it)."""
        self._provider.locks.check_write_permission(  # type: ignore[no-untyped-call]
            url=lock_path(path),
            depth="infinity" if deep else "0",
            token_list=environ["wsgidav.ifLockTokenList"],
            principal=environ["wsgidav.user_name"],
        )

    def _drop_locks(self, path: str) -> None:
        """Locks end with their resource (RFC 4918 9.6)."""
        storage = self._provider.locks.storage
        for token in storage.get_lock_list(path, include_root=True, include_children=True, token_only=True):
            storage.delete(token)

    def _existing(self, environ: Environ) -> Node:
        node = self._provider.get_resource_inst(environ["PATH_INFO"], environ)
        if node is None:
            fail(HTTPStatus.NOT_FOUND, f"There is no {environ['PATH_INFO']!r}.")
        return node

    def _parent(self, path: str, environ: Environ) -> tuple[Folder, str]:
        """The folder a new name goes to. Raises DAVError 409 if it is missing (RFC 4918 9.3.1, 9.7.1)."""
        parent_path, name = split_path(path)
        if not name:
            fail(HTTPStatus.METHOD_NOT_ALLOWED, "The drive's root is always there.")
        folder = self._provider.folder(parent_path, environ)
        if folder is None:
            fail(HTTPStatus.CONFLICT, f"There is no folder {parent_path!r}; make it first (MKCOL).")
        return folder, name

    def _depth(self, environ: Environ, default: str, *allowed: str) -> str:
        depth: str = environ.setdefault("HTTP_DEPTH", default)
        if depth not in allowed:
            fail(HTTPStatus.BAD_REQUEST, f"Depth has to be one of {', '.join(allowed)} here.")
        return depth

    # --- properties --------------------------------------------------------------------------------------------

    def do_PROPFIND(self, environ: Environ, start_response: StartResponse) -> Response:
        """Depth 0 and 1. Infinity (also what no Depth means) is refused as RFC 4918 9.1 allows: a drive has millions of files."""
        depth = self._depth(environ, "infinity", "0", "1", "infinity")
        if depth == "infinity":
            message = "PROPFIND of a whole tree is refused; ask folder by folder with Depth: 1."
            fail(HTTPStatus.FORBIDDEN, message, condition=PRECONDITION_CODE_PropfindFiniteDepth)
        node = self._existing(environ)
        self._evaluate_if_headers(node, environ)
        body = _xml_body(environ, allow_empty=True)
        wanted = Wanted(body)
        members: Iterable[Node] = ()
        if depth == "1" and isinstance(node, Folder):
            members = node.members_with_properties() if wanted.dead else node.members()
        first = wanted.response(node)  # here an error of the core still becomes a status
        return _multistatus(start_response, itertools.chain([first], map(wanted.response, members)))

    def do_PROPPATCH(self, environ: Environ, start_response: StartResponse) -> Response:
        self._depth(environ, "0", "0")
        node = self._existing(environ)
        self._evaluate_if_headers(node, environ)
        self._may_write(node.path, environ)
        if isinstance(node, File):
            self._may_write(node.real_path, environ)
        update = Update(_xml_body(environ))
        if not update.refused:
            changes = update.changes
            if None in changes.values():  # removing what is not there is no error here (RFC 4918 14.23)
                present = node.properties()
                changes = {key: value for key, value in changes.items() if value is not None or key in present}
            if changes:
                self._vfs.set_properties(node.caller, node.stat.ino, changes)
            if update.times is not None:
                self._vfs.setattr(node.caller, node.stat.ino, update.times)
        return _multistatus(start_response, [update.response(node.get_href())])

    # --- names -------------------------------------------------------------------------------------------------

    def do_MKCOL(self, environ: Environ, start_response: StartResponse) -> Response:
        path = environ["PATH_INFO"]
        if util.get_content_length(environ):
            fail(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "MKCOL takes no body.")
        self._depth(environ, "0", "0")
        mtime_ns = oc_mtime(environ)
        existing = self._provider.get_resource_inst(path, environ)
        if existing is not None:
            fail(HTTPStatus.METHOD_NOT_ALLOWED, f"{path!r} is there already.")
        folder, name = self._parent(path, environ)
        self._evaluate_if_headers(None, environ)
        self._may_write(path, environ)
        self._may_write(folder.path, environ)
        stat = self._vfs.mkdir(folder.caller, folder.stat.ino, name, FOLDER_MODE)
        if mtime_ns is not None:
            self._vfs.setattr(folder.caller, stat.ino, SetAttr(mtime_ns=mtime_ns))
        return _empty(start_response, HTTPStatus.CREATED, mtime_headers(mtime_ns))

    def do_DELETE(self, environ: Environ, start_response: StartResponse) -> Response:
        node = self._existing(environ)
        if util.get_content_length(environ):
            fail(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "DELETE takes no body.")
        self._depth(environ, "infinity", *(("infinity",) if node.stat.is_dir else ("0", "infinity")))
        self._evaluate_if_headers(node, environ)
        folder, name = self._parent(node.path, environ)
        self._may_write(folder.path, environ)
        self._may_write(node.path, environ, deep=True)
        self._vfs.remove(node.caller, folder.stat.ino, name)
        self._drop_locks(node.path)
        return _empty(start_response, HTTPStatus.NO_CONTENT)

    def do_COPY(self, environ: Environ, start_response: StartResponse) -> Response:
        source, folder, name, target = self._source_and_target(environ)
        recursive = self._depth(environ, "infinity", "0", "infinity") == "infinity"
        over = target is not None
        with _unless_there():
            self._vfs.copy(source.caller, source.stat.ino, folder.stat.ino, name, recursive=recursive, over=over)
        return _empty(start_response, HTTPStatus.NO_CONTENT if over else HTTPStatus.CREATED)

    def do_MOVE(self, environ: Environ, start_response: StartResponse) -> Response:
        self._depth(environ, "infinity", "infinity", "0")  # litmus and davfs2 send 0 for files
        source, folder, name, target = self._source_and_target(environ, moves=True)
        old_folder, old_name = self._parent(source.path, environ)
        if target is None:
            with _unless_there():
                self._vfs.rename(
                    source.caller, old_folder.stat.ino, old_name, folder.stat.ino, name, RenameFlag.NOREPLACE
                )
        else:
            self._vfs.move_over(source.caller, old_folder.stat.ino, old_name, folder.stat.ino, name)
            self._drop_locks(folder.path + name)  # RFC 4918 9.9.3: what was there has been deleted
        self._drop_locks(source.path)
        return _empty(start_response, HTTPStatus.CREATED if target is None else HTTPStatus.NO_CONTENT)

    def _source_and_target(self, environ: Environ, *, moves: bool = False) -> tuple[Node, Folder, str, Node | None]:
        """All checks that COPY and MOVE share (RFC 4918 9.8, 9.9). Returns source, the target's folder and name, and
        what is there now."""
        source = self._existing(environ)
        if is_view(source.stat.ino):
            message = "What a view shows is computed: download it, and upload your copy under /Documents."
            fail(HTTPStatus.FORBIDDEN, message)
        if util.get_content_length(environ):
            fail(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"{environ['REQUEST_METHOD']} takes no body.")
        overwrite = environ.get("HTTP_OVERWRITE", "T").strip().upper()
        if overwrite not in ("T", "F"):
            fail(HTTPStatus.BAD_REQUEST, "Overwrite has to be T or F.")
        path = self._destination(environ)
        here, there = lock_path(source.path), lock_path(path)
        if here == there:
            fail(HTTPStatus.FORBIDDEN, "Source and destination are the same.")
        if there.startswith(here.rstrip("/") + "/") and source.stat.is_dir:
            fail(HTTPStatus.FORBIDDEN, "A folder cannot go into itself.")
        folder, name = self._parent(path, environ)
        if is_view(folder.stat.ino):
            fail(HTTPStatus.FORBIDDEN, "Views are computed, nothing can be put there; write under /Documents.")
        target = self._provider.get_resource_inst(path, environ)
        if target is None:
            self._provider.refuse_hidden(folder, name)
        self._evaluate_if_headers(source, environ)
        if moves:
            self._may_write(split_path(source.path)[0], environ)
            self._may_write(source.path, environ, deep=True)
        if target is None:
            self._may_write(folder.path, environ)
        self._may_write(path, environ, deep=True)
        if target is not None and overwrite == "F":
            fail(HTTPStatus.PRECONDITION_FAILED, "The destination is there, and Overwrite says F.")
        if target is not None and here.startswith(there.rstrip("/") + "/"):
            fail(HTTPStatus.FORBIDDEN, "The destination holds the source; it would be deleted first.")
        return source, folder, name, target

    def _destination(self, environ: Environ) -> str:
        """The path of Destination. Raises DAVError 400, or 502 for another server (RFC 4918 9.8.5)."""
        header = environ.get("HTTP_DESTINATION")
        if not header:
            fail(HTTPStatus.BAD_REQUEST, "The Destination header is missing.")
        parts = urlsplit(header)
        hosts = {environ.get(key, "").lower() for key in ("HTTP_HOST", "HTTP_X_FORWARDED_HOST")} - {""}
        if parts.netloc and parts.netloc.rpartition("@")[2].lower() not in hosts:
            fail(
                HTTPStatus.BAD_GATEWAY, "The destination is on another server. Behind a proxy, pass the Host header on."
            )
        if not parts.path.startswith("/"):
            fail(HTTPStatus.BAD_REQUEST, "Destination has to be a URL of this server.")
        return url_path(parts.path)

    # --- locks -------------------------------------------------------------------------------------------------

    def do_LOCK(self, environ: Environ, start_response: StartResponse) -> Response:
        """wsgidav's, after what it does not check: somebody else's token, locks above a name that is not there yet, and the right
        to write: or a reader could keep all writers out."""
        path = environ["PATH_INFO"]
        header = parse_if(environ.get("HTTP_IF"))
        environ["wsgidav.ifLockTokenList"] = header.tokens
        if not util.get_content_length(environ):
            for lock in filter(None, map(self._vfs.lock, header.tokens)):
                if lock.user != environ["wsgidav.user_name"]:
                    fail(HTTPStatus.FORBIDDEN, "That lock is somebody else's.")
        elif (node := self._provider.get_resource_inst(path, environ)) is not None:
            self._vfs.check_writable(node.caller, node.stat.ino)
        else:
            folder, name = self._parent(path, environ)
            self._provider.refuse_hidden(folder, name)
            self._may_write(folder.path, environ)
            self._may_write(path, environ)
        try:
            response: Response = super().do_LOCK(environ, start_response)  # type: ignore[no-untyped-call]
        except NotFound:
            fail(HTTPStatus.PRECONDITION_FAILED, "That lock has expired.")
        return response


def _xml_body(environ: Environ, *, allow_empty: bool = False) -> Any:
    """The request's XML as the standard library's elements: wsgidav parses with lxml where that is installed, which has elements of
    its own and lets entities pass unresolved. They are refused here."""
    body = util.parse_xml_body(environ, allow_empty=allow_empty)
    if body is None:
        return None
    try:
        element: Element = fromstring(xml_tools.xml_to_bytes(body))
    except (ParseError, DefusedXmlException) as error:
        fail(HTTPStatus.BAD_REQUEST, f"The XML of the request is not accepted: {error}.")
    return element


def oc_mtime(environ: Environ) -> int | None:
    """X-OC-Mtime (ownCloud, rclone): seconds since the epoch, to nanoseconds. Raises DAVError 400."""
    text = environ.get("HTTP_X_OC_MTIME")
    if text is None:
        return None
    whole, _, fraction = text.strip().partition(".")
    if not whole.lstrip("-").isdigit() or len(whole) > 12 or (fraction and not fraction.isdigit()):
        fail(HTTPStatus.BAD_REQUEST, "X-OC-Mtime has to be seconds since the epoch.")
    return int(whole) * 10**9 + int((fraction + "0" * 9)[:9])


def mtime_headers(mtime_ns: int | None) -> Headers:
    return [] if mtime_ns is None else [("X-OC-Mtime", "accepted")]


@contextlib.contextmanager
def _unless_there() -> Iterator[None]:
    """Somebody took the destination's name between our look and the change."""
    try:
        yield
    except Exists as error:
        fail(HTTPStatus.PRECONDITION_FAILED, str(error))


def _empty(start_response: StartResponse, status: int, headers: Headers | None = None) -> Response:
    start_response(reason(status), [*(headers or []), ("Content-Length", "0")])
    return []


def _multistatus(start_response: StartResponse, responses: Iterable[str]) -> Response:
    start_response(reason(HTTPStatus.MULTI_STATUS), [("Content-Type", "application/xml; charset=utf-8")])
    return multistatus(responses)
