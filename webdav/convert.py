"""Between HTTP and the core: errors to statuses, URLs to paths, times to text, names to media types.

Owns: the one table from FsError to HTTP status. Used by: every module of this door.
Threading: pure functions over immutable tables.
"""

from __future__ import annotations

import email.utils
import mimetypes
import time
from collections.abc import Sequence
from http import HTTPStatus
from typing import NoReturn
from urllib.parse import quote, unquote_to_bytes
from xml.sax.saxutils import escape

from wsgidav.dav_error import DAVError, DAVErrorCondition

from archivia_fs import errors
from archivia_fs.types import lookup_key

Headers = list[tuple[str, str]]

LOCKED = "It is locked by somebody else, or by you in another program; try later, or see 'archivia-fs locks list'."
RETRY_AFTER_S = 5  # what a client is told with 503: the store's own retries last about that long

# RFC 9110 section 15 and RFC 4918 section 11. The nearest class of the error's own line of descent counts.
STATUS: dict[type[errors.FsError], int] = {
    errors.FsError: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.NotFound: HTTPStatus.NOT_FOUND,
    errors.Exists: HTTPStatus.METHOD_NOT_ALLOWED,  # MKCOL (RFC 4918 9.3.1); PUT, COPY and MOVE with a condition say 412 themselves
    errors.NotADirectory: HTTPStatus.CONFLICT,
    errors.IsADirectory: HTTPStatus.METHOD_NOT_ALLOWED,
    errors.NotEmpty: HTTPStatus.CONFLICT,
    errors.NameTooLong: HTTPStatus.BAD_REQUEST,
    errors.InvalidName: HTTPStatus.BAD_REQUEST,
    errors.NotUtf8: HTTPStatus.BAD_REQUEST,
    errors.InvalidArgument: HTTPStatus.BAD_REQUEST,
    errors.AccessDenied: HTTPStatus.FORBIDDEN,
    errors.NotPermitted: HTTPStatus.FORBIDDEN,
    errors.ReadOnly: HTTPStatus.FORBIDDEN,
    errors.FileTooBig: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.NoSpace: HTTPStatus.INSUFFICIENT_STORAGE,
    errors.Busy: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.Changed: HTTPStatus.PRECONDITION_FAILED,
    errors.Locked: HTTPStatus.LOCKED,
    errors.NoAttribute: HTTPStatus.NOT_FOUND,
    errors.AttributeExists: HTTPStatus.CONFLICT,
    errors.NotSupported: HTTPStatus.NOT_IMPLEMENTED,
    errors.TooManyLinks: HTTPStatus.CONFLICT,
    errors.CrossDevice: HTTPStatus.BAD_GATEWAY,  # RFC 4918 9.8.5: the destination is another namespace
    errors.StoreError: HTTPStatus.BAD_GATEWAY,  # we are a gateway, and what stands behind us answered wrongly
    errors.StoreUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.StoreFull: HTTPStatus.INSUFFICIENT_STORAGE,  # whose disk or quota it is makes no difference to the client
    errors.CatalogError: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.CatalogTooNew: HTTPStatus.INTERNAL_SERVER_ERROR,
}


def status_of(error: errors.FsError) -> int:
    """The HTTP status of an error of the core."""
    return next(int(STATUS[kind]) for kind in type(error).__mro__ if kind in STATUS)


def fail(
    status: int, message: str, *, condition: str | DAVErrorCondition | None = None, headers: Headers | None = None
) -> NoReturn:
    """Raise the error that becomes this response. `condition` is a DAV: precondition in Clark notation (RFC 4918 16)."""
    raise DAVError(status, message, err_condition=condition, add_headers=headers)


def reason(status: int) -> str:
    """The status line's text, "404 Not Found"."""
    return f"{int(status)} {HTTPStatus(status).phrase}"


def error_response(error: Exception) -> tuple[str, Headers, bytes]:
    """Status line, headers and body for any exception; an unexpected one tells the client nothing of our insides."""
    headers: Headers = []
    condition: DAVErrorCondition | None = None
    if isinstance(error, DAVError):
        status, message = int(error.value), str(error.context_info or "")
        headers += error.add_headers or []
        condition = error.err_condition
    elif isinstance(error, errors.FsError):
        status, message = status_of(error), str(error)
    else:
        status, message = int(HTTPStatus.INTERNAL_SERVER_ERROR), "The gateway made a mistake; its log says more."
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers.append(("Retry-After", str(RETRY_AFTER_S)))
    if status in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED):
        return reason(status), headers, b""
    if status == HTTPStatus.LOCKED:
        message = message or LOCKED  # wsgidav says nothing
    if condition is not None:
        body = condition_body(condition, message)
        headers.append(("Content-Type", "application/xml; charset=utf-8"))
    else:
        body = f"{message or HTTPStatus(status).description or HTTPStatus(status).phrase}\n".encode()
        headers.append(("Content-Type", "text/plain; charset=utf-8"))
    headers.append(("Content-Length", str(len(body))))
    return reason(status), headers, body


def condition_body(condition: DAVErrorCondition, message: str) -> bytes:
    """A DAV:error element (RFC 4918 14.5). `hrefs` of the condition are plain paths and are quoted here."""
    local = condition.condition_code.removeprefix("{DAV:}")
    hrefs = "".join(f"<D:href>{escape(href(path))}</D:href>" for path in condition.hrefs)
    return (
        f'<?xml version="1.0" encoding="utf-8"?>\n<D:error xmlns:D="DAV:"><D:{local}>{hrefs}</D:{local}>'
        f"<D:responsedescription>{escape(message)}</D:responsedescription></D:error>"
    ).encode()


def url_path(raw: str) -> str:
    """The drive's path of a request target or Destination path, as WSGI hands it over (Latin-1 text of the raw bytes).

    A "/" at the end is kept. Raises InvalidName for NUL, "." and "..", and an escaped "/"; NotUtf8.
    """
    path = raw.split("#", 1)[0].split("?", 1)[0]
    names: list[str] = []
    for segment in path.split("/"):
        name = unquote_to_bytes(segment.encode("latin-1"))
        if not name:
            continue
        if b"/" in name or b"\0" in name or name in (b".", b".."):
            raise errors.InvalidName(f'The name {segment!r} holds "/" or NUL or is a dot name; rename it.')
        try:
            names.append(name.decode("utf-8"))
        except UnicodeDecodeError:
            raise errors.NotUtf8(f"The name {segment!r} is not UTF-8; let the client send names as UTF-8.") from None
    return "/" + "/".join(names) + ("/" if names and path.endswith("/") else "")


def href(path: str) -> str:
    """A path as it stands in DAV:href. Round brackets stay as they are, since Nautilus chokes on them escaped."""
    return quote(path, safe="/!*'(),$-_.~")


def split_path(path: str) -> tuple[str, str]:
    """ "/a/b/" to ("/a", "b"); the root's name is empty."""
    parent, _, name = path.rstrip("/").rpartition("/")
    return parent or "/", name


def lock_path(path: str) -> str:
    """The key of a path among locks: without a slash at the end, and one key for Finder's and Linux's spelling."""
    return lookup_key("/" + path.strip("/"))


def media_type(name: str) -> str:
    """Content-Type by the name's ending."""
    return _TYPES.guess_type(name, strict=False)[0] or "application/octet-stream"


def http_date(time_ns: int) -> str:
    """RFC 9110 5.6.7, whole seconds rounded down."""
    return email.utils.formatdate(time_ns // 10**9, usegmt=True)


def iso_date(time_ns: int) -> str:
    """RFC 3339 in UTC, as DAV:creationdate wants it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time_ns // 10**9))


def parse_http_date(text: str) -> int | None:
    """Seconds since the epoch, or None for what is no date (RFC 9110 says to ignore such a condition)."""
    try:
        return int(email.utils.parsedate_to_datetime(text).timestamp())
    except (ValueError, TypeError, OverflowError):
        return None


def _media_types(extra: Sequence[tuple[str, str]]) -> mimetypes.MimeTypes:
    types = mimetypes.MimeTypes()  # the built-in table only: the same answer on every machine
    for kind, ending in extra:
        types.add_type(kind, ending)
    return types


_TYPES = _media_types(
    [
        ("image/x-adobe-dng", ".dng"),
        ("image/x-canon-cr2", ".cr2"),
        ("image/x-canon-cr3", ".cr3"),
        ("image/x-nikon-nef", ".nef"),
        ("image/x-sony-arw", ".arw"),
        ("image/x-fuji-raf", ".raf"),
        ("image/jp2", ".jp2"),
        ("image/webp", ".webp"),
        ("text/markdown", ".md"),
        ("text/csv", ".csv"),
        ("application/zip", ".zip"),
        ("application/yaml", ".yaml"),
    ]
)
