"""Properties: what PROPFIND shows and PROPPATCH changes, and how they are written as XML.

Owns: the two spellings of one table (`user.dc.title` on the mount is `{http://purl.org/dc/elements/1.1/}title` here), and the
live properties. A dead property is kept as its text in UTF-8, so that a person reads it with getfattr; one with elements or
attributes inside is kept as its whole XML element. Used by: methods. Threading: pure functions.
"""

from __future__ import annotations

import email.utils
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element, ParseError, tostring
from xml.sax.saxutils import escape, quoteattr

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from archivia_fs.types import Lock, SetAttr
from archivia_fs.vfs.view import is_view
from webdav.convert import fail, http_date, iso_date, parse_http_date
from webdav.locks import SUPPORTED_LOCK, discovery

if TYPE_CHECKING:
    from webdav.resources import Node

DC = "http://purl.org/dc/elements/1.1/"
SAFETY = "archivia-fs:state"  # namespace of the live properties that answer "is it safe yet?"
XATTR = "archivia-fs:xattr"  # namespace for the other user.* attributes of the mount
MICROSOFT = "urn:schemas-microsoft-com:"
LOCKS = "archivia.locks"  # where a PROPFIND keeps the locks in its environ

_NAME = re.compile(r"[^\W\d][\w.\-]*")  # NCName, near enough
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")  # XML 1.0 has no way to write these
_PROTECTED = ("{DAV:}", f"{{{SAFETY}}}")


def _lock_discovery(node: Node) -> str:
    locks: Sequence[Lock] | None = node.environ.get(LOCKS)
    if locks is None:  # one question per request, not one per member of a folder
        locks = node.environ[LOCKS] = node.vfs.locks()
    return "".join(tostring(lock, encoding="unicode") for lock in discovery(locks, node.path)) if locks else ""


# Live properties: XML content, or None where the resource has no such property.
_LIVE: dict[str, Callable[[Node], str | None]] = {
    "{DAV:}resourcetype": lambda node: "<D:collection/>" if node.stat.is_dir else "",
    "{DAV:}displayname": lambda node: escape(node.name),
    "{DAV:}creationdate": lambda node: iso_date(node.stat.birth_ns),
    "{DAV:}getlastmodified": lambda node: http_date(node.stat.mtime_ns),
    "{DAV:}getcontentlength": lambda node: None if node.stat.is_dir else str(node.stat.size),
    "{DAV:}getcontenttype": lambda node: node.get_content_type(),
    "{DAV:}getetag": lambda node: None if node.stat.is_dir else f'"{escape(node.stat.etag)}"',
    "{DAV:}supportedlock": lambda node: SUPPORTED_LOCK,
    "{DAV:}lockdiscovery": _lock_discovery,
}
# Only for who asks by name (RFC 4331 section 3; the others would surprise a client).
_LIVE_BY_NAME: dict[str, Callable[[Node], str | None]] = {
    "{DAV:}quota-available-bytes": lambda node: str(node.vfs.statfs().free_bytes) if node.stat.is_dir else None,
    "{DAV:}quota-used-bytes": lambda node: _used(node) if node.stat.is_dir else None,
    f"{{{MICROSOFT}}}Win32LastModifiedTime": lambda node: http_date(node.stat.mtime_ns),
    f"{{{MICROSOFT}}}Win32LastAccessTime": lambda node: http_date(node.stat.atime_ns),
}
for _word in ("state", "size", "sha256", "crc32", "revision", "since"):
    _LIVE_BY_NAME[f"{{{SAFETY}}}{_word}"] = lambda node, word=_word: _safety(node, word)  # type: ignore[misc]
_TIMES = {
    "{DAV:}getlastmodified": "mtime_ns",
    f"{{{MICROSOFT}}}Win32LastModifiedTime": "mtime_ns",
    f"{{{MICROSOFT}}}Win32LastAccessTime": "atime_ns",
}


def _used(node: Node) -> str:
    space = node.vfs.statfs()
    return str(max(0, space.total_bytes - space.free_bytes))


def _safety(node: Node, word: str) -> str | None:
    """Not in allprop: it costs a question to the catalog per file."""
    if not node.stat.is_file or is_view(node.stat.ino):
        return None
    return node.vfs.state(node.caller, node.stat.ino).words().get(word)


def key_of(clark: str) -> str:
    """Clark notation to the name in the table."""
    namespace, local = split_clark(clark)
    if namespace == DC:
        return f"user.dc.{local}"
    if namespace == XATTR:
        return f"user.{local}"
    return f"{{{namespace}}}{local}"


def clark_of(key: str) -> str | None:
    """The name in the table to Clark notation; None for an xattr that has no XML name."""
    if key.startswith("{"):
        return key
    for prefix, namespace in (("user.dc.", DC), ("user.", XATTR)):
        local = key.removeprefix(prefix)
        if key.startswith(prefix) and _NAME.fullmatch(local):
            return f"{{{namespace}}}{local}"
    return None


def split_clark(clark: str) -> tuple[str, str]:
    """ "{ns}local" or "local" (no namespace) to its two halves."""
    if not clark.startswith("{"):
        return "", clark
    namespace, _, local = clark[1:].partition("}")
    return namespace, local


def encode(element: Element) -> bytes:
    """A property as the client sent it, to the table's value."""
    if len(element) == 0 and not element.attrib:
        return (element.text or "").encode()
    return tostring(element, encoding="unicode").encode()


def decode(clark: str, value: bytes) -> str | None:
    """The whole XML element of a dead property; None if the value is not text, which XML could not carry."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return None
    if _FORBIDDEN.search(text):
        return None
    namespace, local = split_clark(clark)
    if text.startswith("<"):
        try:
            element = fromstring(text)
        except (ParseError, DefusedXmlException, ValueError):
            element = None
        if element is not None and split_clark(element.tag) == (namespace, local):
            return tostring(element, encoding="unicode")
    return (
        f"<X:{local} xmlns:X={quoteattr(namespace)}>{escape(text)}</X:{local}>"
        if namespace
        else (f'<{local} xmlns="">{escape(text)}</{local}>')
    )


def _empty(clark: str) -> str:
    namespace, local = split_clark(clark)
    if namespace == "DAV:":
        return f"<D:{local}/>"
    return f"<X:{local} xmlns:X={quoteattr(namespace)}/>" if namespace else f'<{local} xmlns=""/>'


def _live(name: str, content: str) -> str:
    namespace, local = split_clark(name)
    if namespace == "DAV:":
        return f"<D:{local}>{content}</D:{local}>" if content else f"<D:{local}/>"
    return f"<X:{local} xmlns:X={quoteattr(namespace)}>{content}</X:{local}>"


class Wanted:
    """What a PROPFIND asks for: `names` in Clark notation, or None for all; `names_only` for DAV:propname."""

    def __init__(self, body: Element | None) -> None:
        self.names: list[str] | None = None
        self.names_only = False
        self._also: list[str] = []
        if body is None:
            return
        kinds = {child.tag: child for child in body}
        chosen = kinds.keys() & {"{DAV:}prop", "{DAV:}allprop", "{DAV:}propname"}
        if body.tag != "{DAV:}propfind" or len(chosen) != 1:
            fail(HTTPStatus.BAD_REQUEST, "PROPFIND wants exactly one of DAV:prop, DAV:allprop and DAV:propname.")
        if "{DAV:}prop" in kinds:
            self.names = list(dict.fromkeys(child.tag for child in kinds["{DAV:}prop"]))
        elif "{DAV:}propname" in kinds:
            self.names_only = True
        elif (include := kinds.get("{DAV:}include")) is not None:
            self._also = [child.tag for child in include]

    @property
    def dead(self) -> bool:
        """Whether dead properties are asked for."""
        asked = self._also if self.names is None else self.names
        return self.names is None or any(
            name not in _LIVE and name not in _LIVE_BY_NAME and not name.startswith(_PROTECTED) for name in asked
        )

    def response(self, node: Node) -> str:
        """One DAV:response element for `node`."""
        found: list[str] = []
        missing: list[str] = []
        if self.names is None:
            for name, live in _LIVE.items():
                if (content := live(node)) is not None:
                    found.append(_empty(name) if self.names_only else _live(name, content))
            for clark, value in dead(node.properties()).items():
                found.append(_empty(clark) if self.names_only else value)
        asked = self._also if self.names is None else self.names
        table: Mapping[str, str] | None = None
        for name in asked:
            getter = _LIVE.get(name) or _LIVE_BY_NAME.get(name)
            if getter is not None:
                content = getter(node)
                xml = None if content is None else _live(name, content)
            elif name.startswith(_PROTECTED):
                xml = None
            else:
                table = dead(node.properties()) if table is None else table
                xml = table.get("{{{}}}{}".format(*split_clark(name)))
            if xml is None:
                missing.append(_empty(name))
            else:
                found.append(xml)
        return _response(node.get_href(), _propstat(found, 200) + _propstat(missing, 404))


def dead(table: Mapping[str, bytes]) -> dict[str, str]:
    """Clark name to XML element of everything in the table that XML can carry."""
    result: dict[str, str] = {}
    for key, value in table.items():
        clark = clark_of(key)
        xml = None if clark is None else decode(clark, value)
        if clark is not None and xml is not None:
            result[clark] = xml
    return result


def multistatus(responses: Iterable[str]) -> Iterator[bytes]:
    """A 207 body in pieces of about 64 KiB: a folder of a million files is never one string."""
    yield b'<?xml version="1.0" encoding="utf-8"?>\n<D:multistatus xmlns:D="DAV:">'
    batch: list[str] = []
    length = 0
    for response in responses:
        batch.append(response)
        length += len(response)
        if length > 64 * 1024:
            yield "".join(batch).encode()
            batch, length = [], 0
    yield "".join([*batch, "</D:multistatus>"]).encode()


def _response(href: str, propstats: str) -> str:
    return f"<D:response><D:href>{escape(href)}</D:href>{propstats}</D:response>"


def _propstat(elements: list[str], status: int, condition: str = "") -> str:
    if not elements:
        return ""
    error = f"<D:error><D:{condition}/></D:error>" if condition else ""
    line = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"
    return f"<D:propstat><D:prop>{''.join(elements)}</D:prop><D:status>{line}</D:status>{error}</D:propstat>"


class Update:
    """A PROPPATCH: all of it or nothing (RFC 4918 9.2), the last word on a property counts.

    `changes` for Vfs.set_properties (None removes) and `times` for Vfs.setattr.
    """

    def __init__(self, body: Element) -> None:
        self._names: list[str] = []
        self._refused: list[str] = []
        self.changes: dict[str, bytes | None] = {}
        self.times: SetAttr | None = None
        times: dict[str, int] = {}
        if body.tag != "{DAV:}propertyupdate":
            fail(HTTPStatus.BAD_REQUEST, "PROPPATCH wants a DAV:propertyupdate element.")
        for action in body:
            if action.tag not in ("{DAV:}set", "{DAV:}remove"):
                continue  # RFC 4918 17: unknown elements are ignored
            for element in (child for prop in action if prop.tag == "{DAV:}prop" for child in prop):
                self._names.append(element.tag)
                moment = _moment(element.text) if action.tag == "{DAV:}set" and element.tag in _TIMES else None
                if moment is not None:
                    times[_TIMES[element.tag]] = moment
                elif element.tag in _TIMES or element.tag.startswith(_PROTECTED):
                    self._refused.append(element.tag)
                else:
                    self.changes[key_of(element.tag)] = encode(element) if action.tag == "{DAV:}set" else None
        if times:
            self.times = SetAttr(**times)

    @property
    def refused(self) -> bool:
        return bool(self._refused)

    def response(self, href: str) -> str:
        """DAV:response: all 200, or the protected ones 403 and the others 424."""
        names = list(dict.fromkeys(self._names))
        refused = [_empty(name) for name in names if name in self._refused]
        others = [_empty(name) for name in names if name not in self._refused]
        done = _propstat(others, 424 if refused else 200)
        return _response(href, done + _propstat(refused, 403, "cannot-modify-protected-property"))


def _moment(text: str | None) -> int | None:
    """Nanoseconds since the epoch of an HTTP date or an RFC 3339 one; None if it is neither."""
    seconds = parse_http_date((text or "").strip())
    if seconds is None:
        match = re.fullmatch(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.\d+)?Z", (text or "").strip())
        if match is None:
            return None
        try:
            seconds = email.utils.mktime_tz((*(int(group) for group in match.groups()), 0, 0, 0, 0))  # type: ignore[arg-type]
        except (ValueError, OverflowError):
            return None
    return seconds * 10**9
